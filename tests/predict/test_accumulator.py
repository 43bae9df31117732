"""Partial sums in memory or on disk."""

import errno

import numpy as np
import pytest

from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.predict.accumulator import FloatBuffer
from ensemble.predict.sliding_window import Output, predict_job
from ensemble.support.errors import EnsembleError
from tests.support.inference import CLASSES, a_volume, card, empty, job, on_cpu, reader


@pytest.mark.parametrize(("shape", "voxel_nm"), [((41, 40, 50), 8), ((33, 24, 90), 16), ((45, 30, 40), 4)])
def test_partial_sums_on_disk_give_the_same_bytes(tmp_path, network, shape, voxel_nm) -> None:
    _, grid, em = a_volume(tmp_path, shape)
    target = Target("1", "d", Grid(tuple(n * 8 // voxel_nm for n in shape), (voxel_nm,) * 3, grid.origin_nm), CLASSES)
    one = job(tmp_path, target, em, card())
    outs = []
    scratch = tmp_path / "scratch"
    for spill_to in (None, scratch):
        stored = empty(one)
        predict_job(one, on_cpu(network, one), reader(one, em), Output(stored, spill_to=spill_to))
        outs.append(stored)
    assert outs[0].any()
    assert np.array_equal(*outs)
    assert not list(scratch.iterdir())


def test_a_disk_without_room_for_partial_sums_is_told(tmp_path, network, monkeypatch) -> None:
    _, grid, em = a_volume(tmp_path, (30, 40, 50))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("os.posix_fallocate", full)
    output = Output(empty(one), spill_to=tmp_path / "scratch")
    with pytest.raises(EnsembleError, match="the disk is full: partial sums need"):
        predict_job(one, on_cpu(network, one), reader(one, em), output)


@pytest.mark.parametrize("on_disk", [False, True])
def test_zeros_are_kept_when_their_pages_are_given_back_and_nobody_sees_the_file(tmp_path, on_disk) -> None:
    room = FloatBuffer(tmp_path / "scratch" if on_disk else None)
    zeros = room.zeros((3, 40, 50))
    assert (zeros.dtype, zeros.shape, zeros.any()) == (np.float32, (3, 40, 50), False)
    zeros[1] = 7
    room.release()
    assert (zeros[1] == 7).all() and not zeros[::2].any()
    assert room.spills is on_disk
    assert not list(tmp_path.glob("scratch/*"))
