"""Memory: what fits is done within it."""

from dataclasses import dataclass

import pytest

from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.methods.method_table import Step
from ensemble.methods.steps import METHODS
from ensemble.plan.budget import Budget
from ensemble.plan.plan import CropPlan
from ensemble.plan.recipe import NamedSource, Route
from tests.support.inference import a_volume, card, job

GIB = 1 << 30


def crop(side: int, *methods: str) -> CropPlan:
    steps = []
    for name in methods:
        said = {"min_distance_voxels": 5} if name == "watershed" else {}
        method = METHODS.by_name[name]
        steps.append(Step(method, method.parameters.model_validate(said).model_dump()))
    route = Route(NamedSource("s"), 0.5, 1.0, "linear", tuple(steps), "")
    target = Target("1", "d", Grid((side,) * 3, (8, 8, 8), (4, 4, 4)), ("mito",))
    return CropPlan(target, {"mito": route}, ("mito",), ())


def test_work_runs_at_once_only_as_far_as_memory_goes() -> None:
    wide, narrow = Budget(16 * GIB, 8), Budget(2 * GIB, 8)
    assert wide.deciding_workers == 8
    assert 1 <= narrow.deciding_workers < 8
    grid = Grid((1000, 1000, 1000), (8, 8, 8), (4, 4, 4))
    assert 1 == narrow.slab_workers(grid) < wide.slab_workers(grid)


def test_only_components_that_may_be_too_large_depend_on_the_memory() -> None:
    budget = Budget(4 * GIB, 2)
    assert budget.may_coarsen(crop(800, "watershed"))
    assert not budget.may_coarsen(crop(300, "watershed"))
    assert not budget.may_coarsen(crop(800, "components"))


def test_a_larger_crop_is_assembled_in_no_more_memory_than_is_lent() -> None:
    budget = Budget(8 * GIB, 2)
    needs = [budget.assembling_bytes(crop(side, "watershed")) for side in (100, 400, 800, 1000)]
    assert needs == sorted(needs)
    assert needs[-1] <= budget.memory_bytes


@dataclass(frozen=True)
class Model:
    weights_bytes: int = 100 << 20
    patch_bytes: int = 200 << 20


@dataclass(frozen=True)
class Job:
    """What a budget asks of a job."""

    sum_bytes: int
    read_bytes: int = 0
    patch: tuple[int, int, int] = (64, 64, 64)
    classes: tuple[str, ...] = ("mito",)
    model: Model = Model()

    spilled_bytes: int = 10 << 20


@pytest.mark.parametrize(("sum_gib", "spills"), [(0.5, False), (12, True)])
def test_sums_go_to_disk_where_they_do_not_fit(sum_gib: float, spills: bool) -> None:
    budget, job = Budget(3 * GIB, 2), Job(int(sum_gib * GIB))
    assert budget.spills(job) is spills
    assert budget.sums_in_words(job) == ("on disk" if spills else "in memory")
    assert budget.predicting_bytes(job) <= budget.memory_bytes


def test_on_a_gpu_activations_are_not_counted() -> None:
    job = Job(0)
    assert Budget(GIB, 2, on_cpu=False).cut(job) is None
    assert Budget(GIB, 2, on_cpu=False).predicting_bytes(job) < Budget(GIB, 2).predicting_bytes(job)


@pytest.mark.parametrize(("gpu_gib", "cut"), [(0, None), (0.2, None), (8, (1, 1))])
def test_sums_lie_on_a_gpu_whose_memory_does(tmp_path, gpu_gib: float, cut) -> None:
    _, grid, em = a_volume(tmp_path, (40, 300, 300))
    one = job(tmp_path, Target("1", "d", grid, ("mito",)), em, card(patch_voxels=16))
    object.__setattr__(one.model, "weights_bytes", 200 << 20)
    budget = Budget(4 * GIB, 2, on_cpu=False, gpu_bytes=int(gpu_gib * GIB))
    assert budget.cut(one) == cut
    in_memory = Budget(4 * GIB, 2, on_cpu=False)
    assert (budget.predicting_bytes(one) < in_memory.predicting_bytes(one)) == (cut is not None)


def test_sums_that_do_not_fit_a_gpu_whole_are_cut(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (40, 600, 100))
    one = job(tmp_path, Target("1", "d", grid, ("mito",)), em, card(patch_voxels=16))
    object.__setattr__(one.model, "patch_bytes", 0)
    needed = Budget(4 * GIB, 2, on_cpu=False, gpu_bytes=GIB)
    assert needed.cut(one) == (1, 1)
    cuts = {Budget(4 * GIB, 2, on_cpu=False, gpu_bytes=mib << 20).cut(one) for mib in range(40, 200)}
    assert None in cuts and max(cuts - {None}) > (1, 1)
    assert needed.sums_in_words(one) == "on the GPU"
    tight = next(b for b in (Budget(4 * GIB, 2, on_cpu=False, gpu_bytes=m << 20) for m in range(40, 200)) if b.cut(one))
    assert tight.sums_in_words(one) == "on the GPU, in {} × {} parts along y and x".format(*tight.cut(one))


def test_each_of_several_devices_takes_its_share(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (40, 60, 70))
    one = job(tmp_path, Target("1", "d", grid, ("mito",)), em, card(patch_voxels=16))
    alone, both = Budget(4 * GIB, 2), Budget(4 * GIB, 2, devices=2)
    extra = both.predicting_bytes(one) - alone.predicting_bytes(one)
    assert 0 < extra < alone.predicting_bytes(one)
