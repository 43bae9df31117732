"""What a build keeps to go on from, and that one build at a time works there."""

import random
from pathlib import Path

import numpy as np
import pytest

from ensemble.build.workspace import Workspace
from ensemble.cli import main
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.decode.assembling import GroupOutcome
from ensemble.predict.shared_folder import SharedPredictions
from ensemble.storage.chunked_array import ChunkedArray
from ensemble.support.errors import EnsembleError, VolumeError
from ensemble.support.journal import Journal
from tests.support.processes import go_on
from tests.support.small_build import BUILD, start, wrong


@pytest.mark.slow
def test_while_a_build_is_at_work_nothing_else_is_built_or_freed_there(place, capsys) -> None:
    process = start(stop_at="predictions/*.zarr/*.*.*.*[0-9]")
    assert "another build is at work here" in wrong(capsys, *BUILD)
    assert main(["clean", "build/small", "--all"]) == 2
    assert "another build is at work here" in capsys.readouterr().err
    assert main(["clean", "build"]) == 0
    assert capsys.readouterr().out == "nothing is left over\n"
    go_on(process)
    assert process.returncode == 0
    assert Path("build/small/submission.zip").exists()


TARGET = Target("7", "d", Grid((70, 20, 20), (8, 8, 8), (4, 4, 4)), ("mito", "nuc"))
WHOLE = TARGET.grid.box
OUTCOME = GroupOutcome(objects={"mito": 1})


def finished(work: Workspace) -> None:
    journal = work.begin(TARGET, ("mito",), "key")
    work.array(TARGET, *journal.noted("run"), "mito", np.dtype(np.uint8))[WHOLE] = np.ones(WHOLE.shape, np.uint8)
    journal.close()
    work.finish(TARGET, ("mito",), "key", OUTCOME)


def codes(work: Workspace, journal: Journal) -> ChunkedArray:
    return work.temporary(TARGET, *journal.noted("run"), "codes", np.dtype(np.uint8))


def test_a_group_is_finished_while_its_arrays_are_whole_and_made_from_the_same(tmp_path) -> None:
    work = Workspace(tmp_path)
    assert work.finished(TARGET, ("mito",), "key") is None
    finished(work)
    assert work.finished(TARGET, ("mito",), "key") == OUTCOME
    assert work.finished(TARGET, ("mito",), "another key") is None
    assert not work.scratch(TARGET).exists()
    (work.store / "crop7" / "mito" / "1.0.0").unlink()
    assert work.finished(TARGET, ("mito",), "key") is None


def test_any_bit_of_a_finished_array_that_changed_is_noticed(tmp_path) -> None:
    work, rng = Workspace(tmp_path), random.Random(0)
    finished(work)
    for file in sorted((work.store / "crop7" / "mito").iterdir()):
        data = file.read_bytes()
        for _ in range(20):
            spoilt = bytearray(data)
            spoilt[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            file.write_bytes(spoilt)
            assert work.finished(TARGET, ("mito",), "key") is None, file
        file.write_bytes(data)
        assert work.finished(TARGET, ("mito",), "key") == OUTCOME
        torn = file.with_name(f"{file.name}.1.part")
        torn.write_bytes(b"x")
        assert work.finished(TARGET, ("mito",), "key") == OUTCOME


def test_a_group_that_was_begun_goes_on_with_the_same_key_only(tmp_path) -> None:
    work = Workspace(tmp_path)
    journal = work.begin(TARGET, ("mito",), "key")
    codes(work, journal)[WHOLE] = np.full(WHOLE.shape, 3, np.uint8)
    journal.note("band", 1)
    journal.close()
    again = work.begin(TARGET, ("mito",), "key")
    assert again.noted("band") == [1]
    assert (codes(work, again)[WHOLE] == 3).all()
    again.close()
    other = work.begin(TARGET, ("mito",), "other")
    assert other.noted("band") == []
    assert not codes(work, other)[WHOLE].any()
    codes(work, journal)[WHOLE] = np.full(WHOLE.shape, 7, np.uint8)  # a worker that was given up writes on
    assert not codes(work, other)[WHOLE].any()
    other.close()


def test_what_is_needed_stays_and_the_rest_is_named(tmp_path) -> None:
    work, shared = Workspace(tmp_path / "mine" / "work"), SharedPredictions(tmp_path / "predictions")
    finished(work)
    work.begin(TARGET, ("nuc",), "begun").close()
    work.need(shared, [], ["begun"], ["crop7/mito"])
    assert work.unneeded() == []
    work.need(shared, [], ["key"], ["crop7/nuc"])
    assert work.unneeded() == [work.store / "crop7" / "mito", work.scratch(TARGET)]


def test_one_process_at_a_time_works_there(tmp_path) -> None:
    work = Workspace(tmp_path / "out")
    work.root.mkdir()
    with work.alone(), pytest.raises(EnsembleError, match="another build is at work here"), work.alone():
        pass
    with work.alone():
        pass


@pytest.mark.parametrize("damaged", range(0, 400, 7))
def test_a_state_with_a_flipped_bit_has_nothing_finished(tmp_path, damaged: int) -> None:
    work = Workspace(tmp_path)
    finished(work)
    (path,) = (tmp_path / "assembled").iterdir()
    state = bytearray(path.read_bytes())
    state[damaged % len(state)] ^= 1 << damaged % 8
    path.write_bytes(state)
    assert work.finished(TARGET, ("mito",), "key") is None


def test_a_scratch_array_with_a_flipped_bit_cannot_be_read(tmp_path) -> None:
    work = Workspace(tmp_path)
    values = np.random.default_rng(0).integers(0, 9, WHOLE.shape, np.uint8)
    journal = work.begin(TARGET, ("mito",), "key")
    journal.close()
    codes(work, journal)[WHOLE] = values
    (chunk,) = (path for path in work.scratch(TARGET).rglob("0.0.0"))
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.write_bytes(data)
    with pytest.raises(VolumeError, match=r"chunk 0\.0\.0 is damaged"):
        codes(work, journal)[WHOLE]
