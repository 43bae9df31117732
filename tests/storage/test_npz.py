"""NumPy's archives: read by parts from an unpacked file, never as objects, never beyond the room there is."""

import io
import pickle
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ensemble.storage.npz import open_npz
from ensemble.support.errors import VolumeError

VALUES = np.random.default_rng(0).random((3, 6, 7, 8)).astype(np.float32)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("values", [VALUES, np.asfortranarray(VALUES), VALUES.astype("f2"), VALUES.astype(">f4")])
def test_a_part_is_that_of_the_array(tmp_path, save, values) -> None:
    save(tmp_path / "a.npz", probabilities=values)
    found = open_npz(str(tmp_path / "a.npz"), "")
    assert found.shape == values.shape and found.dtype == values.dtype
    assert (found.read((1, slice(2, 5), slice(0, 3), slice(7, 8))) == values[1, 2:5, 0:3, 7:8]).all()


def test_an_array_that_was_written_again_is_read_again(tmp_path) -> None:
    path, states = tmp_path / "a.npz", set()
    for values in (VALUES, VALUES[:2]):
        np.savez(path, probabilities=values)
        states.add(open_npz(str(path), "").state(()))
        assert open_npz(str(path), "").shape == values.shape
    assert len(states) == 2


def test_it_is_sent_to_other_processes_by_its_name_and_never_as_another(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", probabilities=VALUES)
    sent = pickle.dumps(open_npz("a.npz", ""))
    assert len(sent) < VALUES.nbytes // 4
    monkeypatch.chdir("/")
    assert (pickle.loads(sent).read((slice(None),) * 4) == VALUES).all()
    np.savez(tmp_path / "a.npz", probabilities=VALUES[:2])
    with pytest.raises(VolumeError, match=r"a\.npz: it was changed while it was read"):
        pickle.loads(sent)


def test_of_several_one_must_be_named(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", softmax=VALUES, other=VALUES[0])
    assert open_npz(str(tmp_path / "a.npz"), "other").shape == VALUES[0].shape
    with pytest.raises(VolumeError, match=r"a\.npz: name one of its arrays, as .*a\.npz:/NAME; it holds softmax, oth"):
        open_npz(str(tmp_path / "a.npz"), "")


def archive(path: Path, member: bytes) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as to:
        to.writestr("probabilities.npy", member)
    return str(path)


def npy(values: np.ndarray) -> bytes:
    to = io.BytesIO()
    np.save(to, values, allow_pickle=True)
    return to.getvalue()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy(np.array([{}], object)), "holds Python objects, which are never loaded"),
        (npy(VALUES)[:-40], "is not of its header's shape|ends before all of its voxels"),
        (npy(VALUES) + b"more", "holds more than its header tells"),
        (b"no array at all", "not readable as .npz"),
    ],
)
def test_a_member_that_is_no_plain_array_is_refused(tmp_path, member, message) -> None:
    with pytest.raises(VolumeError, match=rf"a\.npz: .*({message})"):
        open_npz(archive(tmp_path / "a.npz", member), "")


def test_damage_is_told_and_not_taken_for_values(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", probabilities=VALUES)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(VolumeError, match="Bad CRC-32"):
        open_npz(str(tmp_path / "a.npz"), "")


def test_one_that_unpacks_to_more_than_there_is_room_for_is_refused_before(tmp_path, monkeypatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", probabilities=np.zeros((64, 64, 64), np.float32))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2_000_000))
    with pytest.raises(VolumeError, match=r"a\.npz: .* unpacks to 0\.0 GB and .* free; set TMPDIR"):
        open_npz(str(tmp_path / "a.npz"), "")
