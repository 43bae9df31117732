"""A part of each network's work is timed once, and never again on this machine."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.plan.request import Request, prepare
from ensemble.predict import pace
from ensemble.predict.network_uses import settled_uses
from ensemble.predict.pace import part_of, time_networks
from ensemble.predict.sliding_window import Output, predict_job
from ensemble.support.progress import QuietProgress
from registry.store import Registry
from tests.support.inference import a_volume, card, empty, job, on_cpu, reader, tiny_network


def test_networks_that_were_never_timed_are_and_the_plan_knows_its_hours(place, monkeypatch):
    monkeypatch.setattr(pace, "TIMED_S", 0.01)
    request, registry = Request("small.yaml", Path("out"), Path("manifest.csv"), device="cpu"), Registry()
    registry.paces.path.unlink(missing_ok=True)
    prepared = prepare(request, registry)
    jobs, uses = prepared.plan.jobs, settled_uses(request, prepared, registry, QuietProgress())
    assert prepared.hours(jobs).untimed == ["fine", "coarse"]
    time_networks(request, prepared, registry, QuietProgress(), [one for one in jobs if one.source == "fine"], uses)
    assert prepared.hours(jobs).untimed == ["coarse"]
    time_networks(request, prepared, registry, QuietProgress(), jobs, uses)
    assert prepared.hours(jobs).untimed == []
    kept = registry.paces.path.read_bytes()
    time_networks(request, prepared, registry, QuietProgress(), jobs, uses)
    assert registry.paces.path.read_bytes() == kept  # nothing was timed again
    assert 0 < prepared.hours(jobs[:1]).predicting_s < prepared.hours(jobs).predicting_s
    assert not Path("out").exists()


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volume")
    return folder, a_volume(folder, (80, 90, 100))[2]


@given(patches=st.integers(1, 200), target_nm=st.sampled_from([2, 8, 20]))
def test_a_part_is_of_the_jobs_own_patches_and_no_more_than_asked_for(volume, patches: int, target_nm: int) -> None:
    folder, em = volume
    crop = Grid((400 // target_nm,) * 3, (target_nm,) * 3, (200, 200, 200))
    whole = job(folder, Target("1", "d", crop, ("mito", "nuc")), em, card(patch_voxels=16))
    part = part_of(whole, min(patches, whole.patches))
    assert 1 <= part.patches <= patches
    for mine, theirs in zip(part.starts, whole.starts, strict=True):
        assert mine == theirs[: len(mine)]
    if patches >= whole.patches:
        assert part.starts == whole.starts
    for axis in range(3):
        cut = len(part.starts[axis]) < len(whole.starts[axis])
        assert len(part.needed.along(axis)) == (
            whole.starts[axis][len(part.starts[axis])] if cut else whole.lattice.shape[axis]
        )


def test_a_part_runs_as_a_job_does(tmp_path: Path) -> None:
    _, _, em = a_volume(tmp_path, (80, 90, 100))
    crop = Grid((50, 60, 70), (6, 8, 10), (200, 200, 200))
    whole = job(tmp_path, Target("1", "d", crop, ("mito", "nuc")), em, card(patch_voxels=16))
    for patches in (1, 2, 7, 40):
        part, seen = part_of(whole, patches), []
        out = empty(part)
        predict_job(
            part, on_cpu(tiny_network(), part), reader(part, em), Output(out), lambda n, _, seen=seen: seen.append(n)
        )
        assert sum(seen) == part.patches
        assert out.any(axis=(2, 3)).all()  # every plane was written
