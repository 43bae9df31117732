"""Patches shown as their views say, wherever the tensors lie: on a GPU this costs those who read nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble.train.views import Exposure, View


def shown(grey: Tensor, codes: Tensor, views: Sequence[View]) -> tuple[Tensor, Tensor]:
    """Grey values as float32 (B, 1, z, y, x) and codes (B, C, z, y, x), each patch as its view shows it."""
    greys = [_exposed(_turned(g, view), view.exposure) for g, view in zip(grey.float(), views, strict=True)]
    return torch.stack(greys), torch.stack([_turned(c, view) for c, view in zip(codes, views, strict=True)])


def _turned(patch: Tensor, view: View) -> Tensor:
    patch = patch.flip(view.flips) if view.flips else patch
    for a, b in view.swaps:
        patch = patch.transpose(a, b)
    return patch.rot90(view.turns, view.plane) if view.turns else patch


def _exposed(grey: Tensor, exposure: Exposure | None) -> Tensor:
    if exposure is None:
        return grey
    mean, spread = grey.mean(), grey.std(correction=0)
    random = torch.Generator(grey.device).manual_seed(exposure.noise_seed)
    noise = torch.randn(grey.shape, generator=random, device=grey.device)
    return (grey - mean) * exposure.contrast + mean + spread * (exposure.shift + exposure.noise * noise)
