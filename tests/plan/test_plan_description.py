"""A plan as typed values: what it says is what will be done, and as plain values it is the file."""

import json
from pathlib import Path

import pytest

from ensemble.plan.plan import Plan
from ensemble.plan.plan_description import PlanDescription
from ensemble.plan.request import Request, prepare
from registry.store import Registry


@pytest.fixture
def request_and_plan(place) -> tuple[Request, Plan]:
    request = Request("small.yaml", Path("out"), Path("manifest.csv"), device="cpu")
    return request, prepare(request, Registry()).plan


def test_it_says_of_every_class_how_it_is_made(request_and_plan) -> None:
    request, plan = request_and_plan
    described = PlanDescription.of(plan, request.budget)
    assert (described.recipe, described.consistency) == ("small", "joint")
    assert {name: source.version for name, source in described.sources.items()} == {"fine": 1, "coarse": 1}
    assert {(source.overlap, source.context) for source in described.sources.values()} == {(0.25, True)}
    crop = described.crops["1"]
    assert (crop.dataset, crop.grid.shape, crop.grid.origin_nm) == ("d", [70, 18, 20], [22, 82, 82])
    assert set(crop.classes["mito"].models) == {"fine", "coarse"}
    assert crop.classes["mito"].models["coarse"].resampled == "16 → 4 nm"
    assert crop.classes["mito"].models["fine"].truth_sizes_log2_nm3 == {"12": 3, "15": 1}
    assert crop.classes["nuc"].weight == "hard"
    assert crop.classes["mito_mem"].fallback
    assert not crop.classes["mito"].fallback
    assert not crop.classes["lyso"].claimed


def test_its_cost_is_the_sum_of_its_passes_and_arrays(request_and_plan) -> None:
    request, plan = request_and_plan
    described = PlanDescription.of(plan, request.budget)
    jobs = [job for crop in described.crops.values() for job in crop.jobs]
    assert described.cost.patches == sum(job.patches for job in jobs) == sum(job.patches for job in plan.jobs) > 0
    assert described.cost.forward_passes == sum(job.forward_passes for job in jobs)
    assert described.cost.stored_bytes == sum(job.stored_bytes for job in jobs)
    assert described.cost.arrays == sum(len(crop.classes) for crop in described.crops.values()) == 16
    assert described.cost.voxels == 8 * (70 * 18 * 20 + 8 * 6 * 7)
    most = max(crop.assembling_memory_bytes for crop in described.crops.values())
    assert described.cost.peak_memory_bytes >= max(most, max(job.peak_memory_bytes for job in jobs))


def test_patches_for_context_are_counted(request_and_plan) -> None:
    request, _ = request_and_plan
    recipe = Path("small.yaml")
    recipe.write_text(recipe.read_text().replace('fine@champion"', 'fine@champion", overlap: 0.5'))
    described = PlanDescription.of(prepare(request, Registry()).plan, request.budget)
    jobs = [job for crop in described.crops.values() for job in crop.jobs]
    assert described.cost.patches_for_context == sum(job.patches_for_context for job in jobs) > 0
    assert all(job.patches_for_context < job.patches for job in jobs)
    assert {name: source.overlap for name, source in described.sources.items()} == {"fine": 0.5, "coarse": 0.25}


def test_as_plain_values_it_is_what_json_reads_back(request_and_plan) -> None:
    request, plan = request_and_plan
    plain = PlanDescription.of(plan, request.budget).as_plain()
    assert json.loads(json.dumps(plain)) == plain
