"""One annotated crop of a few voxels, opened as a network sees it."""

from pathlib import Path

from ensemble.core.box import Box, zyx
from ensemble.train.crops import AnnotatedCrop, open_crop
from ensemble.train.spec import TrainingSpec


def spec_of(**changed) -> TrainingSpec:
    plain = {
        "name": "tiny",
        "architecture": "UNet",
        "arguments": {},
        "classes": ["mito"],
        "voxel_size_nm": 8,
        "patch_voxels": 4,
        "crops": {"fly": ["1"]},
        "steps": 1,
        "learning_rate": 1e-3,
    }
    return TrainingSpec(**(plain | changed))


def opened(root: Path, spec: TrainingSpec) -> AnnotatedCrop:
    return open_crop(root, "fly", "1", spec, lambda: "spec.yaml:7: crops.fly[0]")


def box(*bounds: tuple[int, int]) -> Box:
    """The box with these bounds along z, y and x."""
    return Box(zyx(start for start, _ in bounds), zyx(stop for _, stop in bounds))
