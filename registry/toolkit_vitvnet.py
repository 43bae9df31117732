"""The toolkit's ViT-V-Net: a convolutional encoder, a transformer at a 32nd of the scale, a decoder with skips.

Chen et al. 2021, arXiv:2104.06468, with the toolkit's sizes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN, INNER, HEADS, DEPTH = 252, 3072, 12, 12
EMBEDDED = 8
"""Voxels, at a quarter of the scale, along each edge of what becomes one token."""

_ENCODED = (16, 32, 32)
_DECODED = (96, 48, 32, 32, 16)
_SKIPPED = (32, 32, 32, 32, 16)
_FIRST = 512
_SCALE = 4 * EMBEDDED


class _DoubleConv(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            *(nn.Conv3d(width_in, width_out, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv3d(width_out, width_out, 3, padding=1), nn.ReLU(inplace=True)),
        )

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.double_conv(x)
        return answer


class _Down(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool3d(2), _DoubleConv(width_in, width_out))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.maxpool_conv(x)
        return answer


class _Encoder(nn.Module):
    """Features at a quarter of the scale, and those for the decoder, coarsest first."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.inc = _DoubleConv(in_channels, _ENCODED[0])
        self.down1 = _Down(_ENCODED[0], _ENCODED[1])
        self.down2 = _Down(_ENCODED[1], _ENCODED[2])

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        finest = self.inc(x)
        middle = self.down1(finest)
        features = self.down2(middle)
        eighth = functional.max_pool3d(features, 2)
        return features, [functional.max_pool3d(eighth, 2), eighth, features, middle, finest]


class _Embeddings(nn.Module):
    def __init__(self, in_channels: int, tokens: int) -> None:
        super().__init__()
        self.hybrid_model = _Encoder(in_channels)
        self.patch_embeddings = nn.Conv3d(_ENCODED[-1], HIDDEN, EMBEDDED, stride=EMBEDDED)
        self.position_embeddings = nn.Parameter(torch.zeros(1, tokens, HIDDEN))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features, skips = self.hybrid_model(x)
        tokens = self.patch_embeddings(features).flatten(2).transpose(1, 2)
        return self.dropout(tokens + self.position_embeddings), skips


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(HIDDEN, HIDDEN) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            of(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for of in (self.query, self.key, self.value)
        )
        attended = functional.scaled_dot_product_attention(query, key, value)
        answer: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return answer


class _Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(HIDDEN, INNER), nn.Linear(INNER, HIDDEN)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dropout(functional.gelu(self.fc1(x)))
        answer: Tensor = self.dropout(self.fc2(inner))
        return answer


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = (nn.LayerNorm(HIDDEN, eps=1e-6) for _ in range(2))
        self.ffn, self.attn = _Mlp(), _Attention()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.attention_norm(x))
        change: Tensor = self.ffn(self.ffn_norm(x))
        return x + change


class _Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer() for _ in range(DEPTH))
        self.encoder_norm = nn.LayerNorm(HIDDEN, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x)
        answer: Tensor = self.encoder_norm(x)
        return answer


class _Transformer(nn.Module):
    def __init__(self, in_channels: int, tokens: int) -> None:
        super().__init__()
        self.embeddings, self.encoder = _Embeddings(in_channels, tokens), _Layers()

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        tokens, skips = self.embeddings(x)
        return self.encoder(tokens), skips


def _conv(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(width_in, width_out, 3, padding=1, bias=False), nn.BatchNorm3d(width_out), nn.ReLU(inplace=True)
    )


class _Up(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(width_in, width_out), _conv(width_out, width_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        larger = functional.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
        answer: Tensor = self.conv2(self.conv1(torch.cat([larger, skip], dim=1)))
        return answer


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_more = _conv(HIDDEN, _FIRST)
        inputs = (_FIRST, *_DECODED[:-1])
        self.blocks = nn.ModuleList(
            _Up(width + skipped, out) for width, skipped, out in zip(inputs, _SKIPPED, _DECODED, strict=True)
        )

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        x = self.conv_more(x)
        for block, skip in zip(self.blocks, skips, strict=True):
            x = block(x, skip)
        return x


class ViTVNet(nn.Module):
    """Takes patches of ``img_size`` voxels (z, y, x) only, each a multiple of 32: positions are learned."""

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        out_channels: int = 1,
        img_size: Sequence[int] = (128, 128, 128),
    ) -> None:
        super().__init__()
        if spatial_dims != 3:
            raise ValueError("a network of 3 axes; it takes no planes")
        if len(img_size) != 3 or any(n < _SCALE or n % _SCALE for n in img_size):
            raise ValueError(f"img_size {list(img_size)} must be three multiples of {_SCALE}")
        self._grid = tuple(n // _SCALE for n in img_size)
        self.transformer = _Transformer(in_channels, self._grid[0] * self._grid[1] * self._grid[2])
        self.decoder = _Decoder()
        self.reg_head = nn.Sequential(nn.Conv3d(_DECODED[-1], out_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        tokens, skips = self.transformer(x)
        coarsest = tokens.transpose(1, 2).unflatten(2, self._grid)
        answer: Tensor = self.reg_head(self.decoder(coarsest, skips))
        return answer
