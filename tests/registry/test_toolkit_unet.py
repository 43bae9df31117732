"""The toolkit's U-Nets: the names of their tensors, and their answers."""

import pytest
import torch

from registry.toolkit_unet import UNet_2D, UNet_3D
from tests.support.originals import deviation


@pytest.mark.parametrize(
    ("name", "kind", "trilinear", "shape"),
    [
        ("unet 2d", UNet_2D, False, (32, 32)),
        ("unet 2d bilinear", UNet_2D, True, (48, 32)),
        ("unet 2d odd", UNet_2D, False, (37, 45)),
        pytest.param("unet 3d", UNet_3D, False, (16, 32, 16), marks=pytest.mark.slow),
        ("unet 3d trilinear", UNet_3D, True, (32, 16, 16)),
    ],
)
def test_answers_are_those_of_the_toolkits_own(name, kind, trilinear, shape):
    network = kind(spatial_dims=len(shape), out_channels=2, trilinear=trilinear)
    assert deviation(network, name, *shape) < 1e-5


def test_what_it_cannot_be_is_refused():
    with pytest.raises(ValueError, match="a network of 3 axes; it takes no planes"):
        UNet_3D(spatial_dims=2)
    with pytest.raises(ValueError, match="a network of 2 axes; its card needs planes: zyx"):
        UNet_2D(spatial_dims=3)
    with pytest.raises(ValueError, match="trilinear is neither true nor false"):
        UNet_3D(trilinear="no")
    assert UNet_3D(init_filters=2).eval()(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 1, 16, 16, 16)
