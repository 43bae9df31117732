"""MedNeXt as its authors published it (Roy et al. 2023, arXiv:2303.09975), made of MONAI's blocks.

MONAI has a network of the same name whose down-sampling blocks take the expansion ratio of the stage they leave
instead of the one they lead into: the same network at size S, another at B, M and L. Cards call the published one
``MedNeXtV1`` and MONAI's ``MedNeXt``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from monai.networks.blocks.mednext_block import MedNeXtBlock, MedNeXtDownBlock, MedNeXtOutBlock, MedNeXtUpBlock
from torch import Tensor, nn
from torch.nn import functional

from ensemble.support import counted
from registry.mednext_names import BLOCKS, LEVELS, RATIOS, STAGES, Size


class NormOverChannels(nn.Module):
    """The layer norm of the authors' code: each voxel is normalised over its channels, then scaled and shifted."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(1, -1)
        return functional.layer_norm(last, last.shape[-1:], self.weight, self.bias, eps=1e-5).movedim(-1, 1)


class MedNeXtV1(nn.Module):
    """The published network, its tensors named as in the authors' code, but for those of ``grn`` (MONAI's names).

    ``size`` gives the expansion ratio and the number of blocks of the nine stages, unless they are given. In
    training with ``deep_supervision`` it answers at five scales, finest first, else with one tensor.
    ``decoder_kernel_size`` is that from the bottleneck on, where it is another than ``kernel_size``. ``residual``
    blocks add what went into them (``do_res`` of the authors' code), ``residual_resampling`` those between scales
    (``do_res_up_down``). ``norm`` is over each channel ("group") or each voxel ("layer"). ``grn`` adds global
    response normalisation to all blocks but the first between scales, as the authors' code does.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        out_channels: int = 1,
        size: Size = "S",
        kernel_size: int = 3,
        deep_supervision: bool = False,
        init_filters: int = 32,
        expansion_ratios: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        residual: bool = True,
        residual_resampling: bool = True,
        norm: Literal["group", "layer"] = "group",
        grn: bool = False,
        decoder_kernel_size: int | None = None,
    ) -> None:
        super().__init__()
        if size not in RATIOS:
            raise ValueError(f"size {size!r} is none of S, B, M, L")
        ratios, counts = expansion_ratios or RATIOS[size], blocks or BLOCKS[size]
        for name, values in (("expansion_ratios", ratios), ("blocks", counts)):
            if len(values) != STAGES:
                raise ValueError(
                    f"{name} has {counted(len(values), 'entry', 'entries')} where the network has {STAGES} stages"
                )
        if norm not in ("group", "layer"):
            raise ValueError(f"norm {norm!r} is neither group nor layer; say which the network was built with")
        for name, said in (("residual", residual), ("residual_resampling", residual_resampling), ("grn", grn)):
            if not isinstance(said, bool):
                raise ValueError(f"{name} is neither true nor false; say which the network was built with")
        dim = f"{spatial_dims}d"
        kernels = (kernel_size, decoder_kernel_size or kernel_size)

        def block(kind: Callable[..., Any], index: int, *widths: int, grn: bool = grn) -> Any:
            made = kind(
                *widths,
                ratios[index],
                kernel_size=kernels[index >= LEVELS and kind is not MedNeXtDownBlock],
                dim=dim,
                use_residual_connection=residual if kind is MedNeXtBlock else residual_resampling,
                global_resp_norm=grn,
            )
            if norm == "layer":  # MONAI's own is for patches of one size
                made.norm = NormOverChannels(widths[0])
            return made

        def stage(index: int, width: int) -> nn.Sequential:
            return nn.Sequential(*(block(MedNeXtBlock, index, width, width) for _ in range(counts[index])))

        widths = [init_filters * 2**level for level in range(LEVELS + 1)]
        self.deep_supervision = deep_supervision
        self.stem = (nn.Conv3d if spatial_dims == 3 else nn.Conv2d)(in_channels, init_filters, kernel_size=1)
        for level in range(LEVELS):
            width, below = widths[level], widths[level + 1]
            up = STAGES - 1 - level
            self.add_module(f"enc_block_{level}", stage(level, width))
            down = block(MedNeXtDownBlock, level + 1, width, below, grn=grn and level > 0)
            self.add_module(f"down_{level}", down)
            self.add_module(f"up_{level}", block(MedNeXtUpBlock, up, below, width))
            self.add_module(f"dec_block_{level}", stage(up, width))
        self.bottleneck = stage(LEVELS, widths[LEVELS])
        out_block: Callable[..., nn.Module] = MedNeXtOutBlock  # whose constructor MONAI leaves untyped
        for level in range(LEVELS + 1 if deep_supervision else 1):
            self.add_module(f"out_{level}", out_block(widths[level], out_channels, dim))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        x = self.stem(x)
        skips: list[Tensor] = []
        answers: list[Tensor] = []
        for level in range(LEVELS):
            skips.append(self.get_submodule(f"enc_block_{level}")(x))
            x = self.get_submodule(f"down_{level}")(skips[level])
        x = self.bottleneck(x)
        for level in reversed(range(LEVELS)):
            if self.deep_supervision and self.training:
                answers.append(self.get_submodule(f"out_{level + 1}")(x))
            x = skips.pop() + self.get_submodule(f"up_{level}")(x)
            x = self.get_submodule(f"dec_block_{level}")(x)
        x = self.get_submodule("out_0")(x)
        return [x, *reversed(answers)] if self.deep_supervision and self.training else x
