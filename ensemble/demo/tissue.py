"""A toy tissue grown at random: cells that fill space, and organelles wherever they find room.

Lengths are nm; positions are local and bent, as in ``shapes``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from ensemble.core import NmZYX, nm_zyx
from ensemble.demo.scene import Scene
from ensemble.demo.shapes import (
    PM_NM,
    Axes,
    Cells,
    Nucleus,
    Organelle,
    Ripples,
    axes_in,
    capsule_depth,
    directions,
    window_between,
)

CLEARANCE_NM = 14
OVERLAP_NM = 8
ER_RADIUS_NM = 31.0
ER_STEP_NM = 70.0
TRIES = 200
PORES = 26
# Objects tried per µm³, in the order in which they are placed.
CROWD = {"mito pair": 20, "ld": 26, "mito": 12, "er": 36, "ves": 100}
LEAST_RADIUS_NM = {"mito pair": 60, "mito": 60, "ld": 55, "er": 31, "ves": 35}
Node = tuple[int, int, int]


@dataclass(frozen=True)
class Seed:
    """A cell that holds at least the ball of ``reach_nm`` around ``centre``, but for its neighbours' gap."""

    centre: NmZYX
    reach_nm: float
    nucleated: bool = False


@dataclass(frozen=True)
class Anatomy:
    """What to grow: given cells, boxes (low, high) that are crowded first, and how crowded (1 is dense)."""

    corner_nm: NmZYX
    extent_nm: np.ndarray
    seeds: tuple[Seed, ...]
    crowded: tuple[tuple[np.ndarray, np.ndarray], ...]
    density: float = 1.0


def grow(tissue: Anatomy, rng: np.random.Generator) -> Scene:
    """A scene with the given cells, others in between, and as many organelles as find room."""
    seeds = _fill(tissue, rng)
    scene = Scene(
        corner_nm=tissue.corner_nm,
        warp=[Ripples.draw(rng, 6, (220, 550), 11.0) for _ in range(3)],
        gap=Ripples.draw(rng, 12, (150, 500), 9.0),
        roughness=Ripples.draw(rng, 16, (70, 160), 2.0),
        cells=_cells(seeds, rng),
        nuclei={number: _nucleus(seed, rng) for number, seed in enumerate(seeds, start=1) if seed.nucleated},
    )
    with threadpool_limits(1):
        room = _FreePlaces.of(scene, tissue.extent_nm)
    crowd = _Crowd(room, tissue.density, rng)
    for low, high in (*tissue.crowded, (np.zeros(3), tissue.extent_nm)):
        crowd.settle(low, high)
    return replace(scene, organelles=tuple(crowd.organelles))


def _fill(tissue: Anatomy, rng: np.random.Generator) -> list[Seed]:
    """The given seeds and random ones of shrinking reach between and around them, none within another's."""
    seeds = list(tissue.seeds)
    margin = 250.0
    for reach in np.repeat(np.linspace(320, 140, 16), 150):
        centre = rng.uniform(-margin, tissue.extent_nm + margin)
        centres = np.array([seed.centre for seed in seeds])
        reaches = np.array([seed.reach_nm for seed in seeds])
        if (np.linalg.norm(centres - centre, axis=1) > reaches + reach).all():
            seeds.append(Seed(nm_zyx(centre), float(reach)))
    return seeds


def _cells(seeds: Sequence[Seed], rng: np.random.Generator) -> Cells:
    """Seeds swollen until they meet: between two runs a plane, with a gap of 0 (they touch) to 36 nm."""
    count = len(seeds)
    centres = np.array([seed.centre for seed in seeds])
    reaches = np.array([seed.reach_nm for seed in seeds])
    gaps = np.triu(rng.uniform(8, 36, (count, count)) * (rng.random((count, count)) > 0.3), 1)
    gaps += gaps.T
    planes = []
    for number, (centre, reach) in enumerate(zip(centres, reaches, strict=True)):
        apart = np.linalg.norm(centres - centre, axis=1)
        distance = apart * reach / (reach + reaches) - gaps[number] / 2
        near = (apart > 0) & (distance < 3.3 * reach)
        # Beyond twice its reach a cell ends in any case, which only matters at the border of the tissue.
        normals = np.concatenate([(centres[near] - centre) / apart[near, None], np.eye(3), -np.eye(3)])
        planes.append((normals, np.append(distance[near], np.full(6, 1.9 * reach)) + normals @ centre))
    normals, offsets = (np.concatenate(parts) for parts in zip(*planes, strict=True))
    return Cells(normals, offsets, np.cumsum([0, *(len(own) for own, _ in planes[:-1])]))


def _nucleus(seed: Seed, rng: np.random.Generator) -> Nucleus:
    """A nucleus on one side of a nucleated cell, which leaves room for organelles on the other."""
    axes, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    turn = np.arange(PORES) + rng.uniform(0.1, 0.9, PORES)
    height = 1 - 2 * turn / (PORES + 1)
    angle = turn * np.pi * (3 - 5**0.5)
    flat = np.sqrt(1 - height**2)
    return Nucleus(
        centre=np.array(seed.centre) + 0.1 * seed.reach_nm * directions(rng, 1)[0],
        axes=axes,
        radii_nm=rng.uniform(0.61, 0.7, 3) * seed.reach_nm,
        pores=np.stack([height, flat * np.cos(angle), flat * np.sin(angle)], axis=1) @ axes,
        wobble=Ripples.draw(rng, 8, (180, 400), 5.0),
        chromatin=Ripples.draw(rng, 24, (70, 180), 1.0),
    )


class _FreePlaces:
    """How far every place is from what is there already, on a lattice: enough to keep organelles apart."""

    spacing_nm = 15.0
    margin_nm = 120.0

    def __init__(self, axes: Axes, places: np.ndarray, cells: np.ndarray, free_nm: np.ndarray) -> None:
        self._axes, self._places, self._cells, self._free_nm = axes, places, cells, free_nm

    @classmethod
    def of(cls, scene: Scene, extent_nm: np.ndarray) -> "_FreePlaces":
        """The places of a scene without organelles."""
        z, y, x = (np.arange(-cls.margin_nm, e + cls.margin_nm, cls.spacing_nm) for e in extent_nm)
        places = np.stack(np.meshgrid(z, y, x, indexing="ij")).astype(np.float32)
        cells, depth = scene.cells.around(places)
        free_nm = depth - np.maximum(scene.gap.on((z, y, x)), 0) - PM_NM
        made = cls((z, y, x), places, cells, free_nm)
        for nucleus in scene.nuclei.values():
            made._keep_off(nucleus)
        return made

    def _keep_off(self, nucleus: Nucleus) -> None:
        reach = 2 * nucleus.radii_nm.max()
        window = window_between(self._axes, nucleus.centre - reach, nucleus.centre + reach)
        if window is not None:
            distance = nucleus.distance(self._places[:, *window.slices])
            free = distance - nucleus.wobble.on(axes_in(self._axes, window))
            np.minimum(self._free_nm[window.slices], free, out=self._free_nm[window.slices])

    def starts(self, low: np.ndarray, high: np.ndarray, free_nm: float) -> np.ndarray:
        """Places (n, 3) of a box that are so far from everything."""
        window = window_between(self._axes, low, high)
        if window is None:
            return np.zeros((0, 3))
        return self._places[:, *window.slices][:, self._free_nm[window.slices] > free_nm].T.astype(float)

    def nodes(self, starts: np.ndarray) -> list[Node]:
        """Where in the lattice places lie that are some of its own."""
        return [(z, y, x) for z, y, x in self._index(starts).tolist()]

    def cell_at(self, node: Node) -> int:
        return int(self._cells[node])

    def free_at(self, node: Node) -> float:
        return float(self._free_nm[node])

    def free_nm(self, places: np.ndarray) -> np.ndarray:
        """Distance of places (..., 3) from everything, less than ``spacing_nm`` off; -inf off the lattice."""
        index = self._index(places)
        last = np.array(self._free_nm.shape) - 1
        near = np.minimum(np.maximum(index, 0), last)
        inside = (index == near).all(axis=-1)
        z, y, x = near.T
        return np.where(inside, self._free_nm[z, y, x].T, -np.inf)

    def take(self, organelle: Organelle) -> None:
        """Note the organelle as something to keep away from."""
        reach = organelle.radius_nm + 130
        for segment in organelle.segments:
            window = window_between(self._axes, segment.min(axis=0) - reach, segment.max(axis=0) + reach)
            if window is not None:
                free = -capsule_depth(self._places[:, *window.slices], segment, np.float32(organelle.radius_nm))
                np.minimum(self._free_nm[window.slices], free, out=self._free_nm[window.slices])

    def _index(self, places: np.ndarray) -> np.ndarray:
        return np.rint((places + self.margin_nm) / self.spacing_nm).astype(int)


class _Crowd:
    """Organelles, placed so that none touches another by accident."""

    def __init__(self, room: _FreePlaces, density: float, rng: np.random.Generator) -> None:
        self.organelles: list[Organelle] = []
        self._room = room
        self._density = density
        self._rng = rng

    def settle(self, low: np.ndarray, high: np.ndarray) -> None:
        """Add what ``CROWD`` asks for in the box, as far as there is room."""
        volume_um3 = float(np.prod(high - low)) * 1e-9
        draw = {"mito pair": self._pair, "mito": self._mito, "ld": self._ld, "er": self._er, "ves": self._ves}
        for kind, density in CROWD.items():
            count = int(np.ceil(self._density * density * volume_um3))
            needed_nm = LEAST_RADIUS_NM[kind] + CLEARANCE_NM
            tried = self._rng.permutation(self._room.starts(low, high, needed_nm))[: TRIES * count]
            for place, node in zip(tried, self._room.nodes(tried), strict=True):
                if count and self._room.free_at(node) > needed_nm:
                    count -= self._settle_one(draw[kind](self._room.cell_at(node), place))

    def _settle_one(self, group: list[Organelle]) -> bool:
        """Add the group if all of it fits, and say whether it does."""
        if not group or not all(self._fits(organelle) for organelle in group):
            return False
        self.organelles.extend(group)
        for organelle in group:
            self._room.take(organelle)
        return True

    def _fits(self, organelle: Organelle) -> bool:
        return bool((self._room.free_nm(organelle.samples()) > organelle.radius_nm + CLEARANCE_NM).all())

    def _direction(self) -> np.ndarray:
        return np.asarray(directions(self._rng, 1)[0])

    def _turned(self, along: np.ndarray, turn: float, count: int = 1) -> np.ndarray:
        """Random unit vectors (count, 3) that lean from ``along`` by ``turn`` radians or so."""
        vectors = along + turn * directions(self._rng, count)
        return np.asarray(vectors / np.sqrt((vectors**2).sum(axis=1, keepdims=True)))

    def _rod(self, start: np.ndarray, along: np.ndarray, length_nm: float) -> np.ndarray:
        """Three segments that bend a little, (3, 2, 3)."""
        points = [start]
        for _ in range(3):
            points.append(points[-1] + along * length_nm / 3)
            along = self._turned(along, 0.35)[0]
        return np.stack([points[:-1], points[1:]], axis=1)

    def _mito(self, cell: int, place: np.ndarray) -> list[Organelle]:
        radius, length = self._rng.uniform(60, 75), self._rng.uniform(80, 280)
        along = self._direction()
        return [Organelle("mito", cell, radius, self._rod(place - along * length / 2, along, length))]

    def _pair(self, cell: int, place: np.ndarray) -> list[Organelle]:
        """Two that touch, side by side or end to end."""
        (first,) = self._mito(cell, place)
        radius = self._rng.uniform(60, 70)
        reach = first.radius_nm + radius - OVERLAP_NM
        start, end = first.segments[-1]
        along = (end - start) / np.linalg.norm(end - start)
        if self._rng.random() < 0.6:
            aside = np.cross(along, self._direction())
            segments = first.segments + aside / np.linalg.norm(aside) * reach
        else:
            along = self._turned(along, 0.3)[0]
            segments = self._rod(end + along * reach, along, 120)
        return [first, Organelle("mito", cell, radius, segments)]

    def _ld(self, cell: int, place: np.ndarray) -> list[Organelle]:
        end = place + self._direction() * self._rng.uniform(0, 30)
        return [Organelle("ld", cell, self._rng.uniform(55, 78), np.array([[place, end]]))]

    def _ves(self, cell: int, place: np.ndarray) -> list[Organelle]:
        return [Organelle("ves", cell, self._rng.uniform(35, 46), np.array([[place, place]]))]

    def _er(self, cell: int, place: np.ndarray) -> list[Organelle]:
        """A branching tube, grown step by step where there is room."""
        nodes, ways, segments = [place], [self._direction()], []
        for _ in range(9):
            root = -1 if self._rng.random() < 0.75 else int(self._rng.integers(len(nodes)))
            along = self._turned(ways[root], 0.85, 6)
            ends = nodes[root] + along * ER_STEP_NM
            free = np.minimum(self._room.free_nm(ends), self._room.free_nm((ends + nodes[root]) / 2))
            best = int(np.argmax(free > ER_RADIUS_NM + CLEARANCE_NM))
            if free[best] > ER_RADIUS_NM + CLEARANCE_NM:
                segments.append((nodes[root], ends[best]))
                nodes.append(ends[best])
                ways.append(along[best])
        return [Organelle("er", cell, ER_RADIUS_NM, np.array(segments))] if len(segments) >= 3 else []
