"""What goes to a device and comes back; without a GPU the same calls do everything at once."""

import numpy as np
import pytest
import torch

from ensemble.predict.lane import Lane

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, ">i2", np.uint16, np.float32, ">f4", np.float64])
def test_values_arrive_as_float32_and_come_back(device: str, dtype) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)[:, ::-1]
    values.flags.writeable = False
    lane = Lane(torch.device(device), "in")
    there = lane.joined(*lane.uploaded(values, lambda x: x * 2))
    assert (there.dtype, there.device.type) == (torch.float32, device)
    back = lane.downloaded(there + 1, lane.mark())
    assert np.array_equal(back, values.astype(np.float32) * 2 + 1)


@pytest.mark.parametrize("device", DEVICES)
def test_any_number_of_passes_may_follow_each_other(device: str) -> None:
    lane, x = Lane(torch.device(device), "in"), torch.ones(3, device=device)
    for _ in range(20):
        x = x + 1
        lane.keep_pace()
    assert lane.downloaded(x, lane.mark()).tolist() == [21, 21, 21]
