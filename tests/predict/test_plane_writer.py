"""Finished planes are written as bytes, and what fails meanwhile is told as it is."""

import errno

import numpy as np
import pytest
import torch

from ensemble.core.box import Box
from ensemble.core.manifest import Target
from ensemble.predict.plane_writer import quantised
from ensemble.predict.sliding_window import Network, Output, predict_job
from ensemble.support.errors import EnsembleError, VolumeError
from tests.support.inference import CLASSES, a_volume, card, empty, job, monai, on_cpu, order, reader


def test_it_is_stored_within_1_in_510(tmp_path, network) -> None:
    array, grid, em = a_volume(tmp_path, (30, 40, 50))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    stored = empty(one)
    predict_job(one, on_cpu(network, one), reader(one, em), Output(stored))
    assert np.abs(stored / 255 - monai(array, network)[order(one)]).max() <= 1 / 510 + 1e-5


@pytest.mark.parametrize("where", ["read", "write"])
def test_what_fails_while_the_network_computes_is_told_as_it_is(tmp_path, network, where: str) -> None:
    _, grid, em = a_volume(tmp_path, (60, 40, 50))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    read = reader(one, em)

    class Full:
        def __setitem__(self, *_: object) -> None:
            raise OSError(errno.ENOSPC, "no space")

    def damaged(box: Box) -> np.ndarray:
        if box.start[0] > 0:
            raise VolumeError("chunk 3.0.0 cannot be read")
        return read(box)

    output = Output(Full() if where == "write" else empty(one))
    with pytest.raises(OSError if where == "write" else VolumeError):
        predict_job(one, on_cpu(network, one, 1), damaged if where == "read" else read, output)


def test_a_probability_is_its_share_of_255_to_the_nearest_and_nan_is_told() -> None:
    p = torch.tensor([-0.1, 0, 0.0019, 0.0021, 0.5, 1, 1.1])
    values, has_nan = quantised(p)
    assert (values.tolist(), values.dtype) == ([0, 0, 0, 1, 128, 255, 255], torch.uint8)
    assert not has_nan
    assert quantised(torch.tensor([0.5, float("nan")])).has_nan


def test_a_network_that_predicts_nan_is_refused(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (30, 40, 50))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    with pytest.raises(EnsembleError, match="a network predicted NaN"):
        predict_job(
            one,
            Network(lambda x: torch.full((len(x), 3, *one.patch), torch.nan), 2),
            reader(one, em),
            Output(empty(one)),
        )
