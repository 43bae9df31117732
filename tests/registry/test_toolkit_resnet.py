"""The toolkit's residual networks: the names of their tensors, and their answers."""

import pytest

from registry.toolkit_resnet import ResNet
from tests.support.originals import deviation

SMALL = {"ngf": 8, "n_blocks": 2}
OTHER = {"norm_layer": "batch", "use_dropout": True, "padding_type": "zeros", "activation": "LeakyReLU"}


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("resnet 2d", {}, (32, 32)),
        ("resnet 2d replicate", {**SMALL, "padding_type": "replicate"}, (32, 32)),
        ("resnet 3d", SMALL, (16, 32, 16)),
        ("resnet 3d", {**SMALL, "padding_type": "same"}, (16, 32, 16)),
        ("resnet 3d batch", {**SMALL, **OTHER, "n_downsampling": 3}, (16, 32, 16)),
    ],
)
def test_answers_are_those_of_the_toolkits_own(name, arguments, shape):
    assert deviation(ResNet(spatial_dims=len(shape), out_channels=2, **arguments), name, *shape) < 1e-5


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"padding_type": "valid"}, "padding_type 'valid' is none of reflect, same, replicate, zeros"),
        ({"norm_layer": "layer"}, "norm_layer 'layer' is none of instance, batch"),
        ({"activation": "Sin"}, "activation 'Sin' is none of ReLU"),
    ],
)
def test_what_it_cannot_be_is_refused(argument, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**argument)
