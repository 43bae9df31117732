"""How long a plan takes here: what was timed, times how much there is of it."""

import pytest

from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.hours import Pacing, device_in_words, units
from ensemble.plan.plan import Plan, make_plan
from ensemble.storage.em_pyramids import EM
from ensemble.support.progress import duration
from registry.paces import Paces
from tests.support.inference import Known, card
from tests.support.volumes import noise, write_em

GRID = Grid((32, 32, 32), (8, 8, 8), (4, 4, 4))
TARGET = Target("1", "d", GRID, ("nuc", "mito", "er"))
TEXT = """\
name: r
sources: {m: {model: 'models:/tiny@a'}, n: {model: 'models:/tiny@b', tta: mirror}}
defaults: {source: m}
classes: {er: {source: n}, mito: {source: empty}}
"""


@pytest.fixture
def plan(tmp_path) -> Plan:
    (tmp_path / "r.yaml").write_text(TEXT)
    write_em(tmp_path, "d", [(noise(GRID.shape), GRID)])
    known = Known(card(patch_voxels=16))
    return make_plan(recipe_file.load_recipe(tmp_path / "r.yaml"), [TARGET], {"m": known, "n": known}, EM(tmp_path))


def pacing(folder, device: str = "cpu", precision="32", threads: int = 2) -> Pacing:
    return Pacing(Paces(folder / "paces.json"), device, precision, threads, workers=3)


def test_passes_times_their_pace_and_voxels_times_theirs(plan, tmp_path):
    here = pacing(tmp_path)
    eight, one = plan.jobs
    assert (one.forward_passes * 8, units(plan)) == (eight.forward_passes, 2 * 32**3 / 1e6)
    here.paces.keep(here.network(one), 0.5)
    here.paces.keep(here.start, 4.0)
    here.paces.keep(here.assembling(plan), 1000.0)
    found = here.hours(plan, plan.jobs)
    # both jobs run the same network for one class each
    assert found.predicting_s == pytest.approx(4 + 0.5 * (one.forward_passes + eight.forward_passes))
    assert found.assembling_s == pytest.approx(65.536)
    assert found.in_words == (
        f"on this machine about {duration(found.predicting_s)} of predicting (on cpu, 2 threads), "
        "about 1 min 6 s of assembling and checking"
    )


def test_only_what_is_left_to_compute_takes_time(plan, tmp_path):
    here = pacing(tmp_path)
    here.paces.keep(here.network(plan.jobs[0]), 0.5)
    here.paces.keep(here.start, 4.0)
    assert here.hours(plan, plan.jobs[1:]).predicting_s == pytest.approx(4 + 0.5 * plan.jobs[1].forward_passes)
    nothing = here.hours(plan, [])
    assert nothing.predicting_s == 0
    assert nothing.in_words == ("on this machine nothing is left to predict; assembling is timed by the first build")


def test_what_was_never_timed_is_told_by_name_and_not_guessed(plan, tmp_path):
    found = pacing(tmp_path).hours(plan, plan.jobs)
    assert (found.predicting_s, found.assembling_s, found.untimed) == (None, None, ["n", "m"])
    assert found.in_words == (
        "on this machine predicting (on cpu, 2 threads) was never timed for n, m; "
        "assembling is timed by the first build"
    )


def test_another_number_of_threads_another_precision_or_device_is_another_pace(plan, tmp_path):
    job = plan.jobs[0]
    places = [("cpu", 2), ("cpu", 4), ("cuda:1", 2)]
    names = {
        pacing(tmp_path, device, precision, threads).network(job)
        for device, threads in places
        for precision in ("32", "bf16")
    }
    assert len(names) == 6
    assert device_in_words("cuda:1", 2) == "cuda"
