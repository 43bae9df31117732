"""Where networks run."""

import pytest
import torch

from ensemble.predict.device import find_device
from ensemble.support.errors import EnsembleError


def test_the_cpu_is_everywhere_and_auto_is_the_best_there_is():
    assert find_device("cpu") == torch.device("cpu")
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert find_device("auto").type == best


@pytest.mark.parametrize("name", ["tpu", "cpuu", "CUDA:0"])
def test_a_device_that_is_not_there_is_told_with_those_that_are(name):
    with pytest.raises(EnsembleError, match=f"--device {name}: not on this machine, which has .*cpu"):
        find_device(name)
