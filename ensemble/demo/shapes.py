"""The shapes a toy tissue is made of: formulas, so that what a voxel holds depends on its position alone.

Lengths are nm. Positions are local (the scene's corner is 0, 0, 0) and arrays of them have the axis first:
(3, ...) in the order z, y, x. Shapes are simple in a space that the scene's warp bends (positions there are
called bent), so nothing looks ideal.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, all_atoms, zyx

Axes = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]

ATOM = {name: index for index, name in enumerate(all_atoms())}
PM_NM = 16
ENVELOPE_NM = 38
PORE_RADIUS_NM = 35
ROUNDING_NM = 12.0
# Voxels whose cells are looked up together.
TILE = (16, 16, 32)


def _layers(*layers: tuple[str, int]) -> np.ndarray:
    """Atom by whole nm of depth below an object's surface; the last layer goes on for ever."""
    table = np.full(4096, ATOM[layers[-1][0]], np.uint8)
    start = 0
    for name, thickness_nm in layers[:-1]:
        table[start : start + thickness_nm] = ATOM[name]
        start += thickness_nm
    return table


# What each kind of object is made of, from its surface inwards; a nucleus' core is painted as chromatin.
LAYERS = {
    "cell": _layers(("pm", PM_NM), ("cyto", 0)),
    "nuc": _layers(("ne_mem", 12), ("ne_lum", 14), ("ne_mem", 12), ("echrom", 0)),
    "mito": _layers(("mito_mem", 20), ("mito_lum", 0)),
    "er": _layers(("er_mem", 12), ("er_lum", 0)),
    "ves": _layers(("ves_mem", 14), ("ves_lum", 0)),
    "ld": _layers(("ld_mem", 10), ("ld_lum", 0)),
}
CHROMATIN = ("nucpl", "echrom", "hchrom")
PORE = ("np_in", "np_out")
# Every atom that a scene can hold.
DRAWN = frozenset({"ecs", *CHROMATIN, *PORE} | {all_atoms()[i] for t in LAYERS.values() for i in set(t)})


def directions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random unit vectors (count, 3)."""
    vectors = rng.standard_normal((count, 3))
    return np.asarray(vectors / np.sqrt((vectors**2).sum(axis=1, keepdims=True)))


@dataclass(frozen=True)
class Ripples:
    """A smooth random field: the sum of ``amplitudes`` · sin(``waves`` · position + ``phases``)."""

    waves: np.ndarray
    phases: np.ndarray
    amplitudes: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, wavelengths_nm: tuple[float, float], rms: float) -> "Ripples":
        """``count`` waves of random directions, together of root mean square ``rms``; longer are higher."""
        waves = directions(rng, count)
        wavelengths = rng.uniform(*wavelengths_nm, count)
        amplitudes = wavelengths * rms * np.sqrt(2 / np.sum(wavelengths**2))
        return cls(waves * 2 * np.pi / wavelengths[:, None], rng.uniform(0, 2 * np.pi, count), amplitudes)

    @property
    def bound(self) -> float:
        """What the field's magnitude never exceeds."""
        return float(self.amplitudes.sum())

    def on(self, axes: Axes) -> np.ndarray:
        """The field on the lattice of ``axes``, float32 (z, y, x).

        sin(a + b) = sin a cos b + cos a sin b, with a for z and y and b for x, makes it one matrix product.
        """
        z, y, x = axes
        kz, ky, kx = self.waves.T
        rows = z[:, None, None] * kz + y[None, :, None] * ky + self.phases
        columns = kx[:, None] * x
        left = np.concatenate([np.sin(rows), np.cos(rows)], axis=-1) * np.tile(self.amplitudes, 2)
        right = np.concatenate([np.cos(columns), np.sin(columns)])
        return np.asarray(left.astype(np.float32) @ right.astype(np.float32))

    def at(self, positions: np.ndarray) -> np.ndarray:
        """The field at ``positions`` (3, n)."""
        return np.asarray(self.amplitudes @ np.sin(self.waves @ positions + self.phases[:, None]))


def axes_in(axes: Axes, window: Box) -> Axes:
    """The axes of a part of a lattice."""
    z, y, x = (axis[part] for axis, part in zip(axes, window.slices, strict=True))
    return z, y, x


def window_between(axes: Axes, low: np.ndarray, high: np.ndarray) -> Box | None:
    """The part of a lattice between two corners, or None where there is none."""
    starts = [int(np.searchsorted(axis, a)) for axis, a in zip(axes, low, strict=True)]
    stops = [int(np.searchsorted(axis, b)) for axis, b in zip(axes, high, strict=True)]
    if any(start >= stop for start, stop in zip(starts, stops, strict=True)):
        return None
    return Box(zyx(starts), zyx(stops))


@dataclass(frozen=True)
class Canvas:
    """One slab of a grid while it is painted; ``depth`` is how far inside a capsule a voxel lies, else 0."""

    axes: Axes
    bent: np.ndarray
    atoms: np.ndarray
    owners: np.ndarray
    depth: np.ndarray

    def axes_in(self, window: Box) -> Axes:
        return axes_in(self.axes, window)

    def paint_deeper(self, window: Box, depth: np.ndarray, layers: np.ndarray, owner: int) -> None:
        """Paint where the depth is greater than any before: objects that touch share no voxel."""
        seen = self.depth[window.slices]
        deeper = depth > seen
        seen[deeper] = depth[deeper]
        self.atoms[window.slices][deeper] = layers[depth[deeper].astype(np.uint16)]
        self.owners[window.slices][deeper] = owner


@dataclass(frozen=True)
class Cells:
    """Rounded polyhedra that share no point: ``normals`` · position < ``offsets_nm`` for all of its planes.

    ``first`` is the index of each cell's first plane; cells are numbered from 1.
    """

    normals: np.ndarray
    offsets_nm: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def around(self, bent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cell that each position (3, z, y, x) lies in, 0 for none, and how deep (z, y, x), 0 outside."""
        numbers, depth = np.zeros(bent.shape[1:], np.uint16), np.zeros(bent.shape[1:], np.float32)
        for tile in Box.of_shape(depth.shape).tiles(TILE):
            self._fill(bent[:, *tile.slices], numbers[tile.slices], depth[tile.slices])
        return numbers, depth

    def _fill(self, bent: np.ndarray, numbers: np.ndarray, depth: np.ndarray) -> None:
        """``around`` for a tile, by the few planes that pass near it."""
        corners = bent[:, *np.ix_(*[(0, n - 1) for n in depth.shape])].reshape(3, -1)
        centre = corners.mean(axis=1)
        reach = 1.2 * np.linalg.norm(corners - centre[:, None], axis=0).max() + 5
        above = self.normals @ centre - self.offsets_nm
        highest = np.maximum.reduceat(above, self.first)
        last = np.append(self.first[1:], len(above))
        flat = bent.reshape(3, -1)
        for cell in np.flatnonzero(highest < reach):
            planes = self.first[cell] + np.flatnonzero(
                above[self.first[cell] : last[cell]] > highest[cell] - 2 * reach - 8 * ROUNDING_NM
            )
            inside = -self._distance(planes, flat).reshape(depth.shape)
            deeper = inside > depth
            depth[deeper] = inside[deeper]
            numbers[deeper] = cell + 1

    def _distance(self, planes: np.ndarray, flat: np.ndarray) -> np.ndarray:
        """Signed distance (n) of positions (3, n), negative inside: a smooth maximum over the planes."""
        above = (self.normals[planes] / ROUNDING_NM).astype(np.float32) @ flat
        above -= (self.offsets_nm[planes] / ROUNDING_NM).astype(np.float32)[:, None]
        highest = above.max(axis=0)
        if len(planes) > 1:
            above -= highest
            highest += np.log(np.exp(above, out=above).sum(axis=0))
        return np.asarray(ROUNDING_NM * highest)


@dataclass(frozen=True)
class Nucleus:
    """A wobbly ellipsoid with an envelope of two membranes, pores through it, and chromatin.

    ``axes`` are unit vectors in rows, ``radii_nm`` belong to them; ``pores`` are directions (n, 3).
    """

    centre: np.ndarray
    axes: np.ndarray
    radii_nm: np.ndarray
    pores: np.ndarray
    wobble: Ripples
    chromatin: Ripples

    def distance(self, bent: np.ndarray) -> np.ndarray:
        """Signed distance (3, ...) -> (...) from the ellipsoid before it wobbles, exact to first order."""
        offset = bent.reshape(3, -1) - self.centre[:, None].astype(bent.dtype)
        scaled = (self.axes / self.radii_nm[:, None]).astype(bent.dtype) @ offset
        steep = (self.axes / self.radii_nm[:, None] ** 2).astype(bent.dtype) @ offset
        level = np.sqrt(np.einsum("in,in->n", scaled, scaled))
        slope = np.sqrt(np.einsum("in,in->n", steep, steep)) + 1e-6
        return np.asarray(level * (level - 1) / slope).reshape(bent.shape[1:])

    def paint(self, canvas: Canvas, window: Box, owner: int) -> None:
        """Paint the nucleus as ``owner`` and its pores as the owners that follow."""
        axes = canvas.axes_in(window)
        bent = canvas.bent[:, *window.slices]
        depth = self.wobble.on(axes) - self.distance(bent)
        inside = depth > 0
        if not inside.any():
            return
        atoms, owners = canvas.atoms[window.slices], canvas.owners[window.slices]
        atoms[inside] = LAYERS["nuc"][depth[inside].astype(np.uint16)]
        owners[inside] = owner
        core = depth >= ENVELOPE_NM
        density = self.chromatin.on(axes)[core] + 1.2 * np.exp((ENVELOPE_NM - depth[core]) / 30)
        names = np.array([ATOM[name] for name in CHROMATIN], np.uint8)
        atoms[core] = names[(density > -0.5).astype(np.uint8) + (density > 0.8)]
        shell = np.flatnonzero(inside & ~core)
        self._paint_pores(bent.reshape(3, -1)[:, shell], shell, atoms, owners, owner)

    def _paint_pores(
        self, bent: np.ndarray, shell: np.ndarray, atoms: np.ndarray, owners: np.ndarray, owner: int
    ) -> None:
        offset = (bent - self.centre[:, None].astype(bent.dtype)).T
        along = offset @ self.pores.T.astype(bent.dtype)
        nearest = along.argmax(axis=1)
        squared = np.einsum("ni,ni->n", offset, offset) - along.max(axis=1) ** 2
        pore = squared < PORE_RADIUS_NM**2
        places = np.unravel_index(shell[pore], atoms.shape)
        ring = squared[pore] > (PORE_RADIUS_NM / 2) ** 2
        atoms[places] = np.where(ring, ATOM[PORE[1]], ATOM[PORE[0]])
        owners[places] = owner + 1 + nearest[pore]


@dataclass(frozen=True)
class Organelle:
    """Capsules around line segments (n, 2, 3) that form one object; a sphere is a segment of no length."""

    kind: str
    cell: int
    radius_nm: float
    segments: np.ndarray

    def samples(self, spacing_nm: float = 20.0) -> np.ndarray:
        """Places (n, 3) along the segments, at most ``spacing_nm`` apart."""
        start, end = self.segments[:, :1], self.segments[:, 1:]
        longest = np.sqrt(((end - start) ** 2).sum(axis=-1).max())
        count = 2 + int(longest / spacing_nm)
        return np.asarray(start + (end - start) * (np.arange(count) / (count - 1))[:, None]).reshape(-1, 3)


def capsule_depth(places: np.ndarray, segment: np.ndarray, radius_nm: NDArray[np.float32] | np.float32) -> np.ndarray:
    """How far inside the capsule around a segment (2, 3) places (3, ...) lie, negative outside."""
    start, end = segment.astype(np.float32)
    z, y, x = (place - s for place, s in zip(places, start, strict=True))
    dz, dy, dx = end - start
    length2 = float(dz * dz + dy * dy + dx * dx)
    if length2 > 0:
        along = np.clip((z * dz + y * dy + x * dx) / length2, 0, 1)
        z, y, x = z - along * dz, y - along * dy, x - along * dx
    return np.asarray(radius_nm - np.sqrt(z * z + y * y + x * x))
