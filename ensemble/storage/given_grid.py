"""Where an array lies, as its file and a recipe's source tell it together; what they leave open is refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.core import Grid, NmZYX, VoxelsZYX, nm_zyx
from ensemble.support import VolumeError

SMALLEST_NM, LARGEST_NM = 0.1, 1e5
"""An atom, and a tenth of a millimetre: of voxels beyond these the unit is another."""

_SAME_SIZE, _SAME_PLACE_VOXELS = 1e-4, 1e-2


@dataclass(frozen=True)
class GivenGrid:
    """What a recipe says of an array that its file does not; nm along z, y, x.

    ``axes`` names the array's axes in their order, such as xyz. ``is_crop``: it covers just the crop, in voxels of the
    size that is told, or else of the crop's.
    """

    voxel_size_nm: NmZYX | None = None
    origin_nm: NmZYX | None = None
    axes: str | None = None
    is_crop: bool = False


@dataclass(frozen=True)
class Claim:
    """What one key tells; nm along z, y, x. ``corner_nm`` is where the first voxel begins, ``origin_nm`` its centre."""

    key: str
    voxel_size_nm: NmZYX | None = None
    origin_nm: NmZYX | None = None
    corner_nm: NmZYX | None = None


def settled(claims: Sequence[Claim], shape: VoxelsZYX, given: GivenGrid, crop: Grid, place: str) -> Grid:
    """The only grid that agrees with all that is told. Raises VolumeError where there is none, or more than one."""
    claims = [*claims, Claim("grid in the source", given.voxel_size_nm, given.origin_nm)]
    size_nm = _agreed(
        [(claim.key, claim.voxel_size_nm) for claim in claims],
        "voxels of",
        lambda a, b: bool(np.allclose(a, b, rtol=_SAME_SIZE, atol=0)),
        place,
    )
    if given.is_crop:
        size_nm = size_nm or crop.voxel_size_nm
        half_nm = np.array(size_nm) / 2
        claims.append(Claim("grid: crop in the source", origin_nm=nm_zyx(np.array(crop.corner_nm) + half_nm)))
    if size_nm is None:
        raise _unplaced(claims, ("voxel size",), place)
    _check_size(size_nm, place)
    voxel_nm = np.array(size_nm)
    origins = [(claim.key, claim.origin_nm) for claim in claims]
    origins += [
        (claim.key, nm_zyx(np.array(claim.corner_nm) + voxel_nm / 2)) for claim in claims if claim.corner_nm is not None
    ]

    def together(a: NmZYX, b: NmZYX) -> bool:
        return bool((np.abs(np.subtract(a, b)) <= _SAME_PLACE_VOXELS * voxel_nm).all())

    origin_nm = _agreed(origins, "its first voxel's centre at", together, place)
    if origin_nm is None:
        raise _unplaced(claims, ("origin",), place)
    grid = Grid(shape, size_nm, origin_nm)
    if given.is_crop:
        _check_is_crop(grid, crop, place)
    return grid


def _agreed(
    told: Sequence[tuple[str, NmZYX | None]], what: str, same: Callable[[NmZYX, NmZYX], bool], place: str
) -> NmZYX | None:
    known = [(key, value) for key, value in told if value is not None]
    for key, value in known[1:]:
        first_key, first = known[0]
        if not same(first, value):
            raise VolumeError(
                f"{place}: {first_key} says {what} {list(first)} nm (z, y, x), but {key} {list(value)}; "
                "correct the one that is wrong"
            )
    return known[0][1] if known else None


def _unplaced(claims: Sequence[Claim], lacking: Sequence[str], place: str) -> VolumeError:
    if all(claim.origin_nm is None and claim.corner_nm is None for claim in claims) and "origin" not in lacking:
        lacking = (*lacking, "origin")
    return VolumeError(
        f"{place}: nothing says its {' and '.join(lacking)}; say grid: {{voxel_size_nm: [z, y, x], origin_nm: "
        "[z, y, x]} (centre of the first voxel) in its source, or grid: crop where it covers just the crop"
    )


def _check_size(size_nm: NmZYX, place: str) -> None:
    if not SMALLEST_NM <= min(size_nm) <= max(size_nm) <= LARGEST_NM:
        raise VolumeError(f"{place}: its voxels are {list(size_nm)} nm large; write nm, or say its units")


def _check_is_crop(grid: Grid, crop: Grid, place: str) -> None:
    wide_nm = np.multiply(crop.shape, crop.voxel_size_nm)
    if (np.abs(np.multiply(grid.shape, grid.voxel_size_nm) - wide_nm) >= np.array(grid.voxel_size_nm) * 0.999).any():
        raise VolumeError(
            f"{place}: {list(grid.shape)} voxels of {list(grid.voxel_size_nm)} nm (z, y, x) are not just the crop of "
            f"{list(crop.shape)} voxels of {list(crop.voxel_size_nm)} nm; say its grid in numbers, or its axes"
        )
