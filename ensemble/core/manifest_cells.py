"""What one cell of a manifest may say. Whatever nobody else would read the same way is refused, as a ValueError."""

import math
import re
from collections.abc import Sequence

from ensemble.core.box import VoxelsZYX, zyx
from ensemble.core.grid import Grid, NmZYX, nm_zyx
from ensemble.core.tiling import CHUNK

CROP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
DATASET_NAME = re.compile(r"[^\s./\\][^/\\\x00-\x1f]{0,199}")
MAX_CROP_VOXELS, MAX_CROP_CHUNKS = 2**40, 2**21
MAX_EXTENT_NM = 1e8
"""10 cm; beyond it somebody's units are not nm."""


def crop_name(cell: str) -> str:
    """The crop's name without ``crop``: a word that is the same in a folder, a zip and on the server."""
    name = cell.removeprefix("crop")
    if re.fullmatch(r"0+[0-9]+", name):
        raise ValueError(f"crop_name {cell!r} has zeros before the number; write {name.lstrip('0') or '0'}")
    if not re.fullmatch("[0-9]+", name) and _is_number(name):
        raise ValueError(f"crop_name {cell!r} is what a table program made of a name; write the plain number")
    if name.lower().startswith("crop"):
        raise ValueError(f"crop_name {cell!r} would be the folder crop{name}; write crop557 or 557")
    if not CROP_NAME.fullmatch(name):
        raise ValueError(f"crop_name {cell!r} is not a name of ASCII letters, digits, - and _")
    return name


def _is_number(name: str) -> bool:
    """Whether a table program would take it for one; nan, an empty cell's, among them."""
    try:
        float(name)
    except ValueError:
        return False
    return True


def dataset_name(cell: str) -> str:
    """A name that stays inside the data's folder."""
    if not DATASET_NAME.fullmatch(cell):
        raise ValueError(f"dataset {cell!r} is not the name of a folder of data, like jrc_hela-2")
    return cell


def grid(voxel_size: str, translation: str, shape: str) -> Grid:
    """The grid three cells describe. Raises ValueError naming the one that is wrong."""
    voxel_size_nm, origin_nm = _numbers("voxel_size", voxel_size), _numbers("translation", translation)
    shape_voxels = _shape(shape)
    if not all(0 < v * n <= MAX_EXTENT_NM for v, n in zip(voxel_size_nm, shape_voxels, strict=True)):
        raise ValueError(f"voxel_size {voxel_size} times shape {shape} is no extent in nm, positive and under 10 cm")
    if not all(abs(o) <= MAX_EXTENT_NM for o in origin_nm):
        raise ValueError(f"translation {translation} lies more than 10 cm away; it is in nm")
    return Grid(shape_voxels, voxel_size_nm, origin_nm)


def _shape(cell: str) -> VoxelsZYX:
    numbers = _numbers("shape", cell)
    if not all(n >= 1 and n == int(n) for n in numbers):
        raise ValueError(f"shape must be whole numbers of voxels, at least 1, not {cell}")
    if reason := too_large(numbers):
        raise ValueError(f"shape {cell} {reason}")
    return zyx(map(int, numbers))


def too_large(shape: Sequence[float]) -> str:
    """Why nobody can work on a crop of that shape; "" where one can."""
    if math.prod(shape) > MAX_CROP_VOXELS:
        return f"has more than {MAX_CROP_VOXELS:,} voxels; cut the crop into several"
    if math.prod(-(-n // c) for n, c in zip(shape, CHUNK, strict=True)) > MAX_CROP_CHUNKS:
        return f"is more than {MAX_CROP_CHUNKS:,} chunks of {list(CHUNK)}; cut the crop into several"
    return ""


def _numbers(column: str, cell: str) -> NmZYX:
    """Three numbers with both brackets or none."""
    inner = cell[1:-1] if cell[:1] + cell[-1:] == "[]" else cell
    parts = [part.strip() for part in inner.split(";")]
    if len(parts) != 3 or not all(re.fullmatch(r"[-+]?[0-9.]{1,30}([eE][-+]?[0-9]{1,3})?", part) for part in parts):
        raise ValueError(f"{column}: expected three numbers like [8.0;8.0;8.0] (z;y;x), not {cell!r}")
    try:
        numbers = nm_zyx(map(float, parts))
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from error
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{column}: {cell} is not finite")
    return numbers
