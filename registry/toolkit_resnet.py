"""The residual network of the challenge's toolkit, for slices or patches: down, blocks at one scale, up again."""

from typing import Any

from torch import Tensor, nn

PADDINGS = ("reflect", "same", "replicate", "zeros")
NORMS = ("instance", "batch")
ACTIVATIONS: dict[str, type[nn.Module]] = {
    layer.__name__: layer for layer in (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU)
}


class _Layers:
    """What all parts of one network are made of."""

    def __init__(self, spatial_dims: int, norm: str, padding: str, activation: str) -> None:
        at = spatial_dims - 2
        self.conv: Any = (nn.Conv2d, nn.Conv3d)[at]
        self.up: Any = (nn.ConvTranspose2d, nn.ConvTranspose3d)[at]
        norms = {
            "instance": (nn.InstanceNorm2d, nn.InstanceNorm3d),
            "batch": (nn.BatchNorm2d, nn.BatchNorm3d),
        }
        self.norm: Any = norms[norm][at]
        self.bias = norm == "instance"
        pads: dict[str, Any] = {
            "reflect": (nn.ReflectionPad2d, nn.ReflectionPad3d),
            "replicate": (nn.ReplicationPad2d, nn.ReplicationPad3d),
        }
        self._pad = pads.get("reflect" if padding == "same" else padding)
        self._at = at
        self.activation: Any = ACTIVATIONS[activation]

    def pad(self, width: int) -> list[nn.Module]:
        return [] if self._pad is None else [self._pad[self._at](width)]

    def same(self, width_in: int, width_out: int, kernel: int, *, bias: bool) -> list[nn.Module]:
        """A convolution that keeps the shape, with its padding ahead of it unless that is of zeros."""
        inside = kernel // 2 if self._pad is None else 0
        return [*self.pad(kernel // 2), self.conv(width_in, width_out, kernel, padding=inside, bias=bias)]


class _Block(nn.Module):
    def __init__(self, layers: _Layers, width: int, *, drops: bool) -> None:
        super().__init__()
        first = [*layers.same(width, width, 3, bias=layers.bias), layers.norm(width), layers.activation()]
        dropout = [nn.Dropout(0.2)] if drops else []
        second = [*layers.same(width, width, 3, bias=layers.bias), layers.norm(width)]
        self.conv_block = nn.Sequential(*first, *dropout, *second)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.conv_block(x)
        return x + change


class ResNet(nn.Module):
    """``ngf`` channels at the finest scale, ``n_blocks`` residual blocks ``n_downsampling`` scales below.

    ``padding_type`` "valid" of the toolkit, whose answers are smaller than patches, is refused.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        out_channels: int = 1,
        ngf: int = 64,
        norm_layer: str = "instance",
        use_dropout: bool = False,
        n_blocks: int = 6,
        padding_type: str = "reflect",
        activation: str = "ReLU",
        n_downsampling: int = 2,
    ) -> None:
        super().__init__()
        known = {"padding_type": PADDINGS, "norm_layer": NORMS, "activation": tuple(ACTIVATIONS)}
        given = {"padding_type": padding_type, "norm_layer": norm_layer, "activation": activation}
        for name, value in given.items():
            if value not in known[name]:
                raise ValueError(f"{name} {value!r} is none of {', '.join(known[name])}")
        layers = _Layers(spatial_dims, norm_layer, padding_type, activation)

        def rest(width: int) -> list[nn.Module]:
            return [layers.norm(width), layers.activation()]

        parts = [*layers.same(in_channels, ngf, 7, bias=layers.bias), *rest(ngf)]
        for level in range(n_downsampling):
            width = ngf * 2**level
            parts += [layers.conv(width, 2 * width, 3, stride=2, padding=1, bias=layers.bias), *rest(2 * width)]
        parts += [_Block(layers, ngf * 2**n_downsampling, drops=use_dropout) for _ in range(n_blocks)]
        for level in reversed(range(n_downsampling)):
            width = ngf * 2**level
            up = layers.up(2 * width, width, 3, stride=2, padding=1, output_padding=1, bias=layers.bias)
            parts += [up, *rest(width)]
        self.model = nn.Sequential(*parts, *layers.same(ngf, out_channels, 7, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.model(x)
        return answer
