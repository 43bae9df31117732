"""MONAI's SwinUNETR, which torch can compile as one graph."""

from collections.abc import Sequence

from monai.networks.nets.swin_unetr import SwinUNETR as Published


class SwinUNETR(Published):
    """The same network; it looks at the size of a patch without numpy, whose arrays torch would take for tensors."""

    def _check_input_size(self, spatial_shape: Sequence[int]) -> None:
        multiple = self.patch_size**5
        if any(n % multiple for n in spatial_shape):
            raise ValueError(f"every length of {list(spatial_shape)} must be a multiple of {multiple}")
