"""Kept predictions: what is damaged, lost or of other weights is made anew, and nothing else."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.plan.network_use import plain_use
from ensemble.plan.parts import parts_of
from ensemble.predict.prediction_store import Section, complete_prediction, job_key, open_prediction
from ensemble.predict.tissues import tissue_of
from ensemble.support.errors import VolumeError
from tests.support import inference
from tests.support.built import OUT, STORE
from tests.support.inference import CLASSES, a_volume, job
from tests.support.small_build import BUILD, card, checkpoint, predictions, run, wrong
from tests.support.volumes import noise, write_em


def test_a_damaged_prediction_is_told_never_used_and_made_anew(built, capsys) -> None:
    first = (OUT / "submission.zip").read_bytes()
    chunk = max(STORE.glob("*.zarr/[0-9]*"), key=lambda path: (path.stat().st_size, path))
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    chunk.write_bytes(damaged)
    shutil.rmtree(OUT / "work/assembled")
    (OUT / "submission.zip").unlink()
    line = wrong(capsys, *BUILD)
    assert f"chunk {chunk.name} cannot be read" in line
    assert "run the same command again to predict it anew" in line
    assert run() == 0
    assert (OUT / "submission.zip").read_bytes() == first


def test_a_lost_prediction_chunk_and_a_lost_final_chunk_are_made_anew(built) -> None:
    first = (OUT / "submission.zip").read_bytes()
    kept = predictions(built)
    for folder in STORE.glob("*.zarr"):
        max(folder.glob("[0-9]*")).unlink()
    (OUT / "work/submission.zarr/crop1/mito/1.0.0").unlink()
    (OUT / "submission.zip").unlink()
    assert run() == 0
    assert (OUT / "submission.zip").read_bytes() == first
    assert set(predictions(built)) == set(kept)


def test_changed_weights_rerun_their_own_model_only(built, store) -> None:
    kept = predictions(built)
    version = store.register(checkpoint(built / "b.pt", 2, 9), card("coarse", ("nuc", "mito"), 16), alias="champion")
    try:
        assert run("--update-lock") == 0
    finally:
        store.set_alias("coarse", "champion", 1, "back")
    assert version.version > 1
    after = predictions(built)
    assert kept.items() <= after.items()
    made = {path.split("/predictions/")[1].split("/")[0] for path in set(after) - set(kept)}
    assert len({name.split(".")[0] for name in made}) == 2  # the other model's, for each crop


def test_other_em_runs_the_networks_again(built) -> None:
    kept = predictions(built)
    em = Grid((40, 48, 56), (8, 8, 8), (4, 4, 4))
    write_em(built / "data", "d", [(noise(em.shape, seed=1), em)])
    assert run() == 0
    assert len(predictions(built)) > len(kept)


def test_what_is_kept_is_complete_once_every_chunk_of_its_planes_is_there(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (40, 20, 20))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, inference.card())
    kept = open_prediction(tmp_path / "kept", "shared-all", one)
    assert (kept.done_planes(one.stored.box), kept.complete) == (0, False)
    assert complete_prediction(tmp_path / "kept", "shared-all", one) is None
    kept.array[:, :16] = 0  # zeros are written too, so that a lost chunk is told from one of zeros
    kept.mark(one.stored.box)
    assert open_prediction(tmp_path / "kept", "shared-all", one).done_planes(one.stored.box) == 16
    kept.array[:] = 51
    found = complete_prediction(tmp_path / "kept", "shared-all", one)
    assert found.complete
    assert np.allclose(found.of("nuc").probability(one.stored, "linear"), 0.2)
    (found.place / "1.2.0.0").unlink()
    assert complete_prediction(tmp_path / "kept", "shared-all", one) is None


def test_the_planes_of_a_2d_network_are_part_of_a_predictions_key(tmp_path) -> None:
    """Its weights and arguments are the same whichever slices it sees."""
    _, grid, em = a_volume(tmp_path, (20, 24, 32))
    keys = set()
    for planes in ("zyx", "z"):
        one = job(tmp_path, Target("1", "d", grid, CLASSES), em, inference.card(planes=planes))
        keys.add(job_key(one, tissue_of(em, one), "cpu", plain_use(one, "32", "cpu"), 1))
    assert len(keys) == 2


def _stored(tmp_path):
    """A small prediction, complete, with its job and values."""
    _, grid, em = a_volume(tmp_path, (20, 20, 20))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, inference.card())
    stored = open_prediction(tmp_path / "kept", "shared-all", one)
    values = noise(stored.array.shape) % 5
    stored.array[:] = values
    stored.mark(one.stored.box)
    return one, stored, values


def _flip(file, bit: int) -> None:
    damaged = bytearray(file.read_bytes())
    damaged[bit // 8] ^= 1 << bit % 8
    file.write_bytes(damaged)


@pytest.mark.parametrize("name", [".zarray", ".zattrs", "marker"])
def test_a_flipped_bit_in_any_byte_of_a_marker_or_of_metadata_has_it_computed_anew(tmp_path, name) -> None:
    one, stored, _ = _stored(tmp_path)
    file = stored.marker if name == "marker" else stored.place / name
    whole = file.read_bytes()
    assert complete_prediction(tmp_path / "kept", "shared-all", one) is not None
    for place in range(len(whole)):
        _flip(file, 8 * place + place % 8)
        assert complete_prediction(tmp_path / "kept", "shared-all", one) is None
        file.write_bytes(whole)
    _flip(file, 80)
    anew = open_prediction(tmp_path / "kept", "shared-all", one)
    assert anew.done_planes(one.stored.box) == 0
    assert (anew.place / "1.0.0.0").exists()  # who reads it meanwhile takes nothing for zeros
    assert complete_prediction(tmp_path / "kept", "shared-all", one) is None
    assert file.read_bytes() == whole or name == "marker"


def test_no_flipped_bit_of_a_chunk_changes_a_probability_unseen(tmp_path) -> None:
    one, stored, values = _stored(tmp_path)
    chunk = stored.place / "1.0.0.0"
    whole = chunk.read_bytes()
    field = stored.of(one.classes[1]).volume
    found, told = 0, set()
    head, body = range(8 * 16), np.random.default_rng(0).integers(8 * 16, 8 * len(whole), 200)
    for bit in (*head, *(int(bit) for bit in body)):
        _flip(chunk, bit)
        try:
            read = field.read(one.stored.box)
        except VolumeError as error:
            told.add(str(error).partition(" (")[0])
            found += 1
        else:
            assert np.array_equal(read, values[1])  # a bit of the codec's heads that means nothing
        chunk.write_bytes(whole)
    assert found > 250
    assert told == {f"{stored.place}: chunk 1.0.0.0 cannot be read"}


@pytest.mark.parametrize("name", [".zarray", ".zattrs", "marker"])
def test_a_build_predicts_anew_what_a_damaged_marker_or_metadata_no_longer_vouch_for(built, name) -> None:
    first = (OUT / "submission.zip").read_bytes()
    kept = predictions(built)
    place = min(STORE.glob("*.zarr"))
    file = place.with_suffix(".planes") if name == "marker" else place / name
    _flip(file, 100)
    (OUT / "submission.zip").unlink()
    shutil.rmtree(OUT / "work/assembled")
    assert run() == 0
    assert (OUT / "submission.zip").read_bytes() == first
    after = predictions(built)
    assert set(after) == set(kept)
    assert {path for path in kept if after[path] != kept[path]} == {path for path in kept if place.stem in path}


def test_an_array_of_more_classes_serves_a_job_of_fewer(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (20, 20, 20))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, inference.card())
    kept = open_prediction(tmp_path / "kept", "shared-all", one)
    kept.array[:] = 1
    kept.mark(one.stored.box)
    fewer = replace(one, classes=("nuc",))
    assert complete_prediction(tmp_path / "kept", "shared-nuc", fewer).place == kept.place
    assert complete_prediction(tmp_path / "kept", "others-nuc", fewer) is None


def test_a_chunk_that_is_lost_while_somebody_reads_is_told_and_never_read_as_zeros(tmp_path) -> None:
    one, stored, values = _stored(tmp_path)
    field = stored.of(one.classes[1]).volume
    assert np.array_equal(field.read(one.stored.box), values[1])
    (stored.place / "1.1.0.0").unlink()
    with pytest.raises(VolumeError, match=r"chunk 1\.1\.0\.0 is not there any more; run the same command again"):
        field.read(one.stored.box)
    above = one.stored.box.with_axis(0, 0, 16)
    assert np.array_equal(field.read(above), values[1][above.slices])


def test_parts_are_done_each_for_itself_whatever_parts_were_before(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (40, 300, 140))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, inference.card())
    stored = open_prediction(tmp_path / "kept", "shared-all", one)
    stored.array[:] = 7
    low, high = parts_of(one, (2, 1))
    for part in parts_of(one, (2, 2))[:2]:
        assert not stored.done_planes(low.box)
        stored.mark(part.box)
    stored.mark(high.box.with_axis(0, 0, 16))
    again = open_prediction(tmp_path / "kept", "shared-all", one)
    assert (again.done_planes(low.box), again.done_planes(high.box)) == (40, 16)
    assert (again.done_planes(one.stored.box), again.complete) == (16, False)
    assert [again.done_planes(part.box) for part in parts_of(one, (3, 1))] == [40, 16, 16]
    again.mark(high.box)
    assert open_prediction(tmp_path / "kept", "shared-all", one).complete


def test_a_section_is_written_where_it_lies(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (40, 300, 20))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, inference.card())
    stored = open_prediction(tmp_path / "kept", "shared-all", one)
    box = parts_of(one, (2, 1), slabs=2)[3].box
    part = noise((2, box.shape[0], *box.shape[1:]))
    Section(stored, box)[slice(1, 3), slice(0, box.shape[0])] = part
    expected = np.zeros(stored.array.shape, np.uint8)
    z, y, x = box.start
    expected[1:3, z:, y:, x:] = part
    assert np.array_equal(stored.array[:], expected)
