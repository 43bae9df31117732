"""The nouns: grids and boxes of voxels, the challenge's classes and crops, codewords."""

from ensemble.core.box import Box, Slices, VoxelsZYX, zyx
from ensemble.core.box_array import BoxArray, MemoryArray
from ensemble.core.classes import all_atoms, all_classes, ancestors_first, atoms_of, is_instance
from ensemble.core.codebook import Codebook, codebook_of
from ensemble.core.contradictions import (
    BROKEN_OTHERWISE,
    Bits,
    ClassChange,
    DecodingChanges,
    Violations,
    count_violations,
    is_relation,
    pack_bits,
    violating_voxels,
)
from ensemble.core.grid import FIT_TOLERANCE, Grid, LevelFit, NmZYX, fitting_level, nm_zyx
from ensemble.core.manifest import (
    Departure,
    Target,
    load_manifest,
    official_departure,
    official_manifest,
    select_targets,
    write_manifest,
)
from ensemble.core.manifest_cells import too_large
from ensemble.core.resampling import (
    Interpolation,
    apply_along,
    resample,
    resample_labels,
    resampling_matrices,
    support,
)
from ensemble.core.tiling import CHUNK, blocks, chunk_shape, patch_starts, reflect, slabs

__all__ = [
    "BROKEN_OTHERWISE",
    "CHUNK",
    "FIT_TOLERANCE",
    "Bits",
    "Box",
    "BoxArray",
    "ClassChange",
    "Codebook",
    "DecodingChanges",
    "Departure",
    "Grid",
    "Interpolation",
    "LevelFit",
    "MemoryArray",
    "NmZYX",
    "Slices",
    "Target",
    "Violations",
    "VoxelsZYX",
    "all_atoms",
    "all_classes",
    "ancestors_first",
    "apply_along",
    "atoms_of",
    "blocks",
    "chunk_shape",
    "codebook_of",
    "count_violations",
    "fitting_level",
    "is_instance",
    "is_relation",
    "load_manifest",
    "nm_zyx",
    "official_departure",
    "official_manifest",
    "pack_bits",
    "patch_starts",
    "reflect",
    "resample",
    "resample_labels",
    "resampling_matrices",
    "select_targets",
    "slabs",
    "support",
    "too_large",
    "violating_voxels",
    "write_manifest",
    "zyx",
]
