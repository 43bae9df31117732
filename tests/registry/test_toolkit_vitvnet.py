"""The toolkit's ViT-V-Net: the names of its tensors, and its answers."""

import pytest

from registry.toolkit_vitvnet import ViTVNet
from tests.support.originals import deviation


def test_answers_are_those_of_the_toolkits_own():
    assert deviation(ViTVNet(out_channels=2, img_size=(32, 64, 32)), "vitvnet", 32, 64, 32) < 1e-5


@pytest.mark.parametrize("size", [(16, 32, 32), (32, 32), (40, 32, 32)])
def test_patches_that_it_cannot_take_are_refused(size):
    with pytest.raises(ValueError, match=r"img_size \[.*\] must be three multiples of 32"):
        ViTVNet(img_size=size)
