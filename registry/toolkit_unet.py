"""The U-Nets of the challenge's toolkit: five levels, two convolutions each, batch norms, max pooling."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LEVELS = 4
WIDTH = 64


class _Layers:
    """Torch's layers of 2 or 3 dimensions."""

    def __init__(self, spatial_dims: int) -> None:
        self.conv: Any = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        self.norm: Any = (nn.BatchNorm2d, nn.BatchNorm3d)[spatial_dims - 2]
        self.pool: Any = (nn.MaxPool2d, nn.MaxPool3d)[spatial_dims - 2]
        self.up: Any = (nn.ConvTranspose2d, nn.ConvTranspose3d)[spatial_dims - 2]
        self.interpolation = ("bilinear", "trilinear")[spatial_dims - 2]


class _DoubleConv(nn.Module):
    def __init__(self, layers: _Layers, width_in: int, width_out: int, between: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            *(layers.conv(width_in, between, 3, padding=1, bias=False), layers.norm(between), nn.ReLU(inplace=True)),
            *(layers.conv(between, width_out, 3, padding=1, bias=False), layers.norm(width_out), nn.ReLU(inplace=True)),
        )

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.double_conv(x)
        return answer


class _Down(nn.Module):
    def __init__(self, layers: _Layers, width_in: int, width_out: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(layers.pool(2), _DoubleConv(layers, width_in, width_out, width_out))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.maxpool_conv(x)
        return answer


class _Up(nn.Module):
    def __init__(self, layers: _Layers, width_in: int, width_out: int, *, interpolates: bool) -> None:
        super().__init__()
        half = width_in // 2
        self.up = (
            nn.Upsample(scale_factor=2, mode=layers.interpolation, align_corners=True)
            if interpolates
            else layers.up(width_in, half, kernel_size=2, stride=2)
        )
        self.conv = _DoubleConv(layers, width_in, width_out, half if interpolates else width_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        lacking = [there - here for there, here in zip(skip.shape[2:], x.shape[2:], strict=True)]
        sides = [side for n in reversed(lacking) for side in (n // 2, n - n // 2)]  # of the last axis first
        answer: Tensor = self.conv(torch.cat([skip, functional.pad(x, sides)], dim=1))
        return answer


class _Out(nn.Module):
    def __init__(self, layers: _Layers, width: int, channels: int) -> None:
        super().__init__()
        self.conv = layers.conv(width, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.conv(x)
        return answer


class _UNet(nn.Module):
    """``trilinear`` interpolates on the way up (bilinear in 2D) where transposed convolutions would be."""

    dimensions: int

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        out_channels: int = 1,
        trilinear: bool = False,
        init_filters: int = WIDTH,
    ) -> None:
        super().__init__()
        if spatial_dims != self.dimensions:
            one_of = "its card needs planes: zyx, or one of z, y, x" if self.dimensions == 2 else "it takes no planes"
            raise ValueError(f"a network of {self.dimensions} axes; {one_of}")
        if not isinstance(trilinear, bool):
            raise ValueError("trilinear is neither true nor false")
        layers = _Layers(spatial_dims)
        widths = [init_filters * 2**level for level in range(LEVELS + 1)]
        below = [*widths[:LEVELS], widths[LEVELS] // (2 if trilinear else 1)]
        self.inc = _DoubleConv(layers, in_channels, widths[0], widths[0])
        for level in range(LEVELS):
            self.add_module(f"down{level + 1}", _Down(layers, widths[level], below[level + 1]))
        for level in reversed(range(LEVELS)):
            out = widths[level] // (2 if trilinear and level else 1)
            self.add_module(f"up{LEVELS - level}", _Up(layers, widths[level + 1], out, interpolates=trilinear))
        self.outc = _Out(layers, widths[0], out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inc(x)
        skips = []
        for level in range(1, LEVELS + 1):
            skips.append(x)
            x = self.get_submodule(f"down{level}")(x)
        for level in range(1, LEVELS + 1):
            x = self.get_submodule(f"up{level}")(x, skips.pop())
        answer: Tensor = self.outc(x)
        return answer


class UNet_2D(_UNet):
    """The toolkit's network for slices."""

    dimensions = 2


class UNet_3D(_UNet):
    """The toolkit's network for patches; every length is a multiple of 16."""

    dimensions = 3
