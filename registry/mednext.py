"""MedNeXt as its authors published it (Roy et al. 2023, arXiv:2303.09975), made of MONAI's blocks.

MONAI has a network of the same name whose down-sampling blocks take the expansion ratio of the stage they leave
instead of the one they lead into: the same network at size S, another at B, M and L. Cards call the published one
``MedNeXtV1`` and MONAI's ``MedNeXt``.
"""

from collections.abc import Callable, Sequence
from functools import partial

from monai.networks.blocks.mednext_block import MedNeXtBlock, MedNeXtDownBlock, MedNeXtOutBlock, MedNeXtUpBlock
from torch import Tensor, nn

from ensemble.support import counted
from registry.mednext_names import BLOCKS, LEVELS, RATIOS, STAGES, Size


class MedNeXtV1(nn.Module):
    """The published network, its tensors named as in the authors' code.

    ``size`` gives the expansion ratio and the number of blocks of the nine stages, unless they are given. In
    training with ``deep_supervision`` it answers at five scales, finest first, else with one tensor.
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
        dim = f"{spatial_dims}d"

        block = partial(MedNeXtBlock, kernel_size=kernel_size, dim=dim, use_residual_connection=residual)
        down_block, up_block = (
            partial(kind, kernel_size=kernel_size, dim=dim, use_residual_connection=residual_resampling)
            for kind in (MedNeXtDownBlock, MedNeXtUpBlock)
        )

        def stage(index: int, width: int) -> nn.Sequential:
            return nn.Sequential(*(block(width, width, ratios[index]) for _ in range(counts[index])))

        widths = [init_filters * 2**level for level in range(LEVELS + 1)]
        self.deep_supervision = deep_supervision
        self.stem = (nn.Conv3d if spatial_dims == 3 else nn.Conv2d)(in_channels, init_filters, kernel_size=1)
        for level in range(LEVELS):
            width, below = widths[level], widths[level + 1]
            up = STAGES - 1 - level
            self.add_module(f"enc_block_{level}", stage(level, width))
            self.add_module(f"down_{level}", down_block(width, below, ratios[level + 1]))
            self.add_module(f"up_{level}", up_block(below, width, ratios[up]))
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
