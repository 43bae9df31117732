"""A network on a batch of patches: turned, activated, its channels chosen."""

import numpy as np
import pytest
import torch

from ensemble.predict.runner import Runner
from tests.support.inference import PATCH, Centre, card
from tests.support.volumes import noise


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("mirror", 8), ("octahedral", 48)])
def test_augmented_predictions_turn_back_to_where_they_were(tta: str, count: int) -> None:
    of = card(patch_voxels=16, activation="none")
    seen = []

    class Watching(Centre):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x[0, 0].clone())
            return super().forward(x)

    run = Runner(Watching(), of, (0,), tta, torch.device("cpu"))
    patch = torch.from_numpy(noise((16, 16, 16))) / 255
    assert torch.allclose(run(patch[None])[0, 0], patch, atol=1e-6)
    assert len(seen) == count
    assert len({one.numpy().tobytes() for one in seen}) == count


def test_softmax_leaves_out_channels_nobody_wants(tmp_path) -> None:
    of = card(classes=(None, "mito", "nuc"), activation="softmax")
    run = Runner(Centre(), of, (1,), "none", torch.device("cpu"))
    assert np.allclose(run(torch.rand(1, *PATCH)).numpy(), 1 / 3)


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("mirror", 8)])
def test_a_patch_is_timed_after_a_first_pass_and_all_its_augmentations_count(tta: str, count: int) -> None:
    seen = []

    class Counting(Centre):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.shape[0])
            return super().forward(x)

    run = Runner(Counting(), card(), (0,), tta, torch.device("cpu"))
    assert run.patch_s() > 0
    assert seen == [run.batch_size()] * count * 2
