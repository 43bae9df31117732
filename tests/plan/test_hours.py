"""How long a plan takes here: what was timed, times how much there is of it."""

import pytest

from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.hours import assembling_pace, device_in_words, hours_of, network_pace, units
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


def told(plan: Plan, paces: Paces):
    return hours_of(plan, paces, "cpu", "32", threads=2, workers=3)


def test_passes_times_their_pace_and_voxels_times_theirs(plan, tmp_path):
    paces = Paces(tmp_path / "paces.json")
    eight, one = plan.jobs
    assert (one.forward_passes * 8, units(plan)) == (eight.forward_passes, 2 * 32**3 / 1e6)
    paces.note(network_pace(one, "cpu, 2 threads", "32"), 0.5)
    paces.note(assembling_pace(plan, 3), 1000.0)
    found = told(plan, paces)
    # both jobs run the same network for one class each
    assert found.predicting_s == pytest.approx(0.5 * (one.forward_passes + eight.forward_passes))
    assert found.assembling_s == pytest.approx(65.536)
    assert found.in_words == (
        f"on this machine about {duration(found.predicting_s)} of predicting (on cpu, 2 threads), "
        "about 1 min 6 s of assembling and checking"
    )


def test_what_was_never_timed_is_told_by_name_and_not_guessed(plan, tmp_path):
    found = told(plan, Paces(tmp_path / "paces.json"))
    assert (found.predicting_s, found.assembling_s, found.untimed) == (None, None, ["n", "m"])
    assert found.in_words == (
        "on this machine predicting (on cpu, 2 threads) was never timed for n, m; "
        "assembling is timed by the first build"
    )


def test_another_number_of_threads_another_precision_or_device_is_another_pace(plan):
    job = plan.jobs[0]
    places = [device_in_words("cpu", 2), device_in_words("cpu", 4), device_in_words("cuda:1", 2)]
    names = {network_pace(job, place, precision) for place in places for precision in ("32", "bf16")}
    assert len(names) == 6
    assert places[2] == "cuda"
