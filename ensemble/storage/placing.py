"""Which axes of an array are z, y and x, and where its voxels lie in nm, as far as its metadata leave no doubt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ensemble.core import Grid, nm_zyx, zyx
from ensemble.storage.addresses import Location
from ensemble.storage.given_grid import LARGEST_NM, SMALLEST_NM
from ensemble.storage.metadata import (
    Multiscale,
    Naming,
    Numbers,
    Placed,
    Scale,
    Translation,
    attributes_of,
    read_attributes,
)
from ensemble.storage.nodes import ZarrArray
from ensemble.support import VolumeError, counted

_METRES = {"pico": 1e-3, "nano": 1.0, "micro": 1e3, "milli": 1e6, "centi": 1e7, "": 1e9}
_NM_PER_UNIT = {
    **{f"{prefix}{metre}": nm for prefix, nm in _METRES.items() for metre in ("meter", "metre", "meters", "metres")},
    **{"pm": 1e-3, "nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "micron": 1e3, "microns": 1e3, "mm": 1e6, "m": 1e9},
    **{"angstrom": 0.1, "angstroms": 0.1, "å": 0.1},
}
"""By the unit's name in small letters."""


class Shaped(Protocol):
    """Any array, as far as its axes are told apart."""

    @property
    def ndim(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Placement:
    """``order``: which of the array's axes are (the channel,) z, y and x; ``grid``: where its voxels lie."""

    order: tuple[int, ...]
    grid: Grid


def place_plain(array: ZarrArray, place: Location, *, expected: Grid | None = None) -> Placement:
    """Where a plain array says that it lies; one without translation, where it is ``expected``. Raises VolumeError."""
    attributes = attributes_of(array, place)
    naming = read_attributes(Naming, attributes, place)
    placed = read_attributes(Placed, attributes, place)
    order = order_of(array, names_of(array, naming), place)
    nm = nm_per_unit(units_of(naming), array.ndim, order, place)

    def nm_along(values: Numbers, key: str) -> Any:
        return along(values, array.ndim, order, f"{place}: its {key}") * nm

    voxel_size_nm, origin_nm = None, None
    if placed.voxel_size is not None:
        voxel_size_nm = nm_along(placed.voxel_size, "voxel_size")
    if placed.translation is not None:
        origin_nm = nm_along(placed.translation, "translation")
    elif expected is not None:
        origin_nm = expected.origin_nm
        voxel_size_nm = expected.voxel_size_nm if voxel_size_nm is None else voxel_size_nm
    missing = [key for key, values in (("voxel_size", voxel_size_nm), ("translation", origin_nm)) if values is None]
    if missing:
        raise VolumeError(
            f"{place}: its attributes lack {' and '.join(missing)}, so it cannot be placed; "
            "write voxel_size and translation (nm; z, y, x; centre of the first voxel)"
        )
    return Placement(order, _grid(array, order, voxel_size_nm, origin_nm, place))


def place_level(array: ZarrArray, multiscale: Multiscale, index: int, place: Location) -> Placement:
    """Where a level of a multiscale image lies. Raises VolumeError."""
    level, axes = multiscale.datasets[index], multiscale.axes
    naming = read_attributes(Naming, attributes_of(array, place), place)
    names: dict[str, list[str | None]] = {"multiscales": [axis.name for axis in axes], **names_of(array, naming)}
    order = order_of(array, names, place)
    kinds = [axes[axis].type for axis in order[-3:]]
    if any(kind not in ("space", None) for kind in kinds):
        raise VolumeError(f"{place}: its axes z, y, x are of the types {', '.join(map(str, kinds))}, not space")
    scale, translation = np.ones(3), np.zeros(3)
    for transformation in (*level.transformations, *multiscale.transformations):
        if isinstance(transformation, Scale):
            factor = along(transformation.scale, array.ndim, order, f"{place}: its scale")
            scale, translation = scale * factor, translation * factor
        elif isinstance(transformation, Translation):
            translation = translation + along(
                transformation.translation, array.ndim, order, f"{place}: its translation"
            )
    nm = nm_per_unit([axis.unit for axis in axes], array.ndim, order, place)
    return Placement(order, _grid(array, order, scale * nm, translation * nm, place))


def _grid(array: ZarrArray, order: tuple[int, ...], voxel_size_nm: Any, origin_nm: Any, place: Location) -> Grid:
    shape = zyx(array.shape[axis] for axis in order[-3:])
    try:
        grid = Grid(shape, nm_zyx(voxel_size_nm), nm_zyx(origin_nm))
    except ValueError as error:
        raise VolumeError(f"{place}: {error}") from error
    if not SMALLEST_NM <= min(grid.voxel_size_nm) <= max(grid.voxel_size_nm) <= LARGEST_NM:
        raise VolumeError(f"{place}: its voxels are {list(grid.voxel_size_nm)} nm large; write nm, or say its units")
    return grid


def along(values: Numbers, ndim: int, order: tuple[int, ...], what: str) -> Any:
    """Numbers that follow the array's axes, or only those of lengths, along z, y, x."""
    if len(values) == ndim:
        return np.array([values[axis] for axis in order[-3:]])
    if len(values) == 3:
        return np.array([values[rank] for rank in _ranks(order[-3:])])
    raise VolumeError(
        f"{what} holds {counted(len(values), 'number')} where its axes are {ndim}; write one for each of z, y, x"
    )


def _ranks(axes: Sequence[int]) -> list[int]:
    """For each axis how many of them come before it."""
    return [sorted(axes).index(axis) for axis in axes]


# -- axes


def names_of(array: Shaped, naming: Naming) -> dict[str, list[str | None]]:
    """By key what metadata call the array's axes."""
    said = {
        "_ARRAY_DIMENSIONS": naming.array_dimensions,
        "dimension_names": getattr(getattr(array, "metadata", None), "dimension_names", None),
        "axis_names": naming.axis_names,
        "axes": None if naming.axes is None else [axis.name for axis in naming.axes],
    }
    return {key: list(names) for key, names in said.items() if names}


def order_of(array: Shaped, said: Mapping[str, list[str | None]], place: Location) -> tuple[int, ...]:
    """Which of the array's axes are (the channel,) z, y and x; as they stand where nobody names them so."""
    orders = {}
    for key, names in said.items():
        letters = [(name or "").lower() for name in names]
        where = [letters.index(letter) for letter in "zyx" if letters.count(letter) == 1]
        if not set(letters) & set("zyx"):
            if key == "multiscales":
                raise VolumeError(f"{place}: its axes are {_listed(names)}, not z, y, x")
            continue
        if len(where) != 3 or len(names) != array.ndim:
            raise VolumeError(
                f"{place}: its {key} name the axes {_listed(names)}, where its shape is {list(array.shape)}; "
                "name each of z, y, x once"
            )
        orders[key] = (*(axis for axis in range(array.ndim) if axis not in where), *where)
    if len(set(orders.values())) > 1:
        told = " but ".join(f"its {key} {_listed(said[key])}" for key in orders)
        raise VolumeError(f"{place}: {told}: its axes cannot be both; correct what is wrong")
    return next(iter(orders.values()), tuple(range(array.ndim)))


def _listed(names: Sequence[str | None]) -> str:
    return ", ".join(map(str, names))[:80]


# -- units


def units_of(naming: Naming) -> list[str | None]:
    """The unit of each axis, or one for all."""
    for said in (naming.units, naming.unit):
        if said:
            return [said] if isinstance(said, str) else list(said)
    return [axis.unit for axis in naming.axes or ()]


def nm_per_unit(units: Sequence[str | None], ndim: int, order: tuple[int, ...], place: Location) -> Any:
    """Along z, y, x; nm where no unit is said."""
    units = list(units) * ndim if len(units) == 1 else units
    if len(units) == ndim:
        of_axes = [units[axis] for axis in order[-3:]]
    elif len(units) in (0, 3):
        of_axes = [units[rank] if units else None for rank in _ranks(order[-3:])]
    else:
        raise VolumeError(f"{place}: its units are {_listed(units)}, for {ndim} axes; write nm for each")
    unknown = [unit for unit in of_axes if unit and unit.lower() not in _NM_PER_UNIT]
    if unknown:
        raise VolumeError(f"{place}: its unit {unknown[0]!r} is not a length that is known; write nanometer")
    return np.array([_NM_PER_UNIT[unit.lower()] if unit else 1.0 for unit in of_axes])
