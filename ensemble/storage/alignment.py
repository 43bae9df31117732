"""Where the levels of a pyramid lie that says only their voxel sizes: told by how far they reach."""

from dataclasses import replace

from ensemble.core import Grid, nm_zyx

_TOLERANCE = 1e-4
"""Of a voxel."""


def aligned(finest: Grid, level: Grid) -> tuple[Grid, str]:
    """A level whose first voxel has its centre where that of the finest has it, moved to where it lies.

    Voxels that are means of others begin at the same corner as those, voxels picked from them at the same centre.
    Where extents fit both equally well, or neither, the level stays, and a line tells so.
    """
    corner, centre = (_fit(finest, level, ends) for ends in (0, 1))
    if corner is not None and (centre is None or corner > centre):
        return _same_corner(finest, level), ""
    if (centre is not None and centre != corner) or level.voxel_size_nm == finest.voxel_size_nm:
        return level, ""
    return level, (
        f"its metadata say no translation, and by its extent of {list(level.shape)} voxels of "
        f"{list(level.voxel_size_nm)} nm it may begin at the finest level's corner or at its first centre; taken as "
        "the centre; write translations"
    )


def _fit(finest: Grid, level: Grid, ends: int) -> int | None:
    """Along how many axes a level reaches exactly as far as the finest; None where along one it is a voxel off.

    ``ends`` voxels are left out: with 1 it is the centres of the last voxels that are compared.
    """
    exact = 0
    for axis in range(3):
        size, fine = level.voxel_size_nm[axis], finest.voxel_size_nm[axis]
        beyond = (level.shape[axis] - ends) * size - (finest.shape[axis] - ends) * fine
        if abs(beyond) >= size * (1 - _TOLERANCE):
            return None
        exact += abs(size - fine) > fine * _TOLERANCE and abs(beyond) < fine * _TOLERANCE
    return exact


def _same_corner(finest: Grid, level: Grid) -> Grid:
    origin = (c + v / 2 for c, v in zip(finest.corner_nm, level.voxel_size_nm, strict=True))
    return replace(level, origin_nm=nm_zyx(origin))
