"""Where networks run."""

import pytest
import torch

from ensemble.predict.device import find_device, find_devices, lent_gpu_bytes
from ensemble.support.errors import EnsembleError


def test_the_cpu_is_everywhere_and_auto_is_the_best_there_is():
    assert find_device("cpu") == torch.device("cpu")
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert find_device("auto").type == best


@pytest.mark.parametrize("name", ["tpu", "cpuu", "CUDA:0", "cpu:x", "cpu:1", "cuda:99", ""])
def test_a_device_that_is_not_there_is_told_with_those_that_are(name):
    with pytest.raises(EnsembleError, match=f"--device {name}: not on this machine, which has .*cpu"):
        find_device(name)


def test_several_devices_of_one_kind_are_named_in_a_list():
    assert find_devices("cpu,cpu:0") == [torch.device("cpu"), torch.device("cpu:0")]
    assert find_devices("auto") == [find_device("auto")]
    assert lent_gpu_bytes("cpu") == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_all_devices_are_those_of_cuda():
    with pytest.raises(EnsembleError, match="--device all: not on this machine, which has cpu"):
        find_devices("all")
