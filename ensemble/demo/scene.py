"""A toy tissue, painted on any grid: what a voxel holds depends on the position of its centre alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits

from ensemble.core import Box, Grid, NmZYX, all_classes, atoms_of
from ensemble.demo.shapes import (
    ATOM,
    LAYERS,
    Axes,
    Canvas,
    Cells,
    Nucleus,
    Organelle,
    Ripples,
    capsule_depth,
    window_between,
)
from ensemble.support import in_threads

# The warp stretches no object by more than this share of its size.
BEND = 0.4
SLAB_PLANES = 16
WORKERS = 2


@dataclass(frozen=True)
class Painted:
    """A scene on one grid: ``atoms`` index ``all_atoms()``, ``owners`` the scene's objects."""

    grid: Grid
    atoms: np.ndarray
    owners: np.ndarray
    scene: "Scene"

    def sub(self, box: Box) -> "Painted":
        """The part on ``grid.sub(box)``."""
        atoms, owners = (np.ascontiguousarray(values[box.slices]) for values in (self.atoms, self.owners))
        return Painted(self.grid.sub(box), atoms, owners, self.scene)

    def mask(self, name: str) -> np.ndarray:
        """Where the class is, bool."""
        table = np.zeros(256, bool)
        table[[ATOM[part] for part in atoms_of(name)]] = True
        return np.asarray(table[self.atoms])

    def labels(self, name: str) -> np.ndarray:
        """The objects of an instance class, numbered 1, 2, … in this grid, 0 elsewhere.

        The dtype is the smallest unsigned one; the numbers are in the order of the scene's own ids.
        """
        ids = self.scene.ids[name]
        here = np.zeros(ids.max() + 1, bool)
        here[ids[self._owners_here]] = True
        here[0] = False
        numbers = np.cumsum(here) * here
        return np.asarray(numbers.astype(np.min_scalar_type(numbers.max()))[ids][self.owners])

    @cached_property
    def _owners_here(self) -> np.ndarray:
        return np.flatnonzero(np.bincount(self.owners.ravel()))


@dataclass(frozen=True)
class Scene:
    """Cells, the nuclei of some (by the cell's number), and organelles.

    ``corner_nm`` is where the local frame's origin lies. Owners are numbered: 0 nobody (outside every cell),
    then the cells, each nucleus followed by its pores, and the organelles.
    """

    corner_nm: NmZYX
    warp: Sequence[Ripples]
    gap: Ripples
    roughness: Ripples
    cells: Cells
    nuclei: dict[int, Nucleus]
    organelles: Sequence[Organelle] = ()

    @cached_property
    def _objects(self) -> list[tuple[str, int, int]]:
        """(kind, cell, nucleus) of every owner but nobody; cells and nuclei count from 1."""
        rows = [("cell", cell, 0) for cell in range(1, len(self.cells) + 1)]
        for number, (cell, nucleus) in enumerate(self.nuclei.items(), start=1):
            rows += [("nuc", cell, number), *[("np", cell, number)] * len(nucleus.pores)]
        return rows + [(organelle.kind, organelle.cell, 0) for organelle in self.organelles]

    @cached_property
    def _capsules(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The organelles' segments (n, 2, 3), the index of the organelle of each (n), and boxes (n, 2, 3)."""
        numbers = [number for number, o in enumerate(self.organelles) for _ in o.segments]
        segments = np.concatenate([np.empty((0, 2, 3)), *(o.segments for o in self.organelles)])
        reach = np.array([self.organelles[number].radius_nm for number in numbers]) + self.roughness.bound
        half = np.abs(segments[:, 1] - segments[:, 0]) / 2 + reach[:, None]
        return segments, np.array(numbers, int), self._unbent_boxes(segments.mean(axis=1), half)

    @cached_property
    def _nucleus_boxes(self) -> np.ndarray:
        nuclei = self.nuclei.values()
        half = np.array([[n.radii_nm.max() + n.wobble.bound] * 3 for n in nuclei]).reshape(-1, 3)
        return self._unbent_boxes(np.array([n.centre for n in nuclei]).reshape(-1, 3), half)

    def _unbent_boxes(self, centres: np.ndarray, half: np.ndarray) -> np.ndarray:
        """Boxes (n, 2, 3) that hold, before bending, the boxes ``centres`` ± ``half`` (n, 3).

        The warp moves a box's centre as a whole and stretches the rest by its gradient.
        """
        unbent = centres
        for _ in range(8):
            unbent = centres - np.stack([ripples.at(unbent.T) for ripples in self.warp], axis=1)
        stretch = np.minimum(BEND * half.max(axis=1), 2 * max(ripples.bound for ripples in self.warp))
        room = half + stretch[:, None]
        return np.stack([unbent - room, unbent + room], axis=1)

    @cached_property
    def ids(self) -> dict[str, np.ndarray]:
        """For each instance class, the id of every owner; an object's own kind, its nucleus and its cell."""
        kinds = np.array(["", *(kind for kind, _, _ in self._objects)])
        tables = {
            name: np.cumsum(kinds == name) * (kinds == name) for name, row in all_classes().items() if row.instance
        }
        tables["cell"] = np.array([0, *(cell for _, cell, _ in self._objects)])
        tables["nuc"] = np.array([0, *(nucleus for _, _, nucleus in self._objects)])
        return {name: table.astype(np.uint16) for name, table in tables.items()}

    def stripes(self, period_nm: float) -> np.ndarray:
        """A wave vector (owners, 3) along each mitochondrion's length, zero for every other owner."""
        owners = len(self._objects) + 1
        waves = np.zeros((owners, 3))
        for owner, organelle in enumerate(self.organelles, start=owners - len(self.organelles)):
            if organelle.kind == "mito":
                along = organelle.segments[-1, 1] - organelle.segments[0, 0]
                waves[owner] = along / np.linalg.norm(along) * 2 * np.pi / period_nm
        return waves

    def atoms_on(self, grid: Grid) -> np.ndarray:
        """Index into ``all_atoms()`` of what lies at every voxel's centre, uint8."""
        return self.on(grid).atoms

    def instances_on(self, grid: Grid, name: str) -> np.ndarray:
        """Ids of an instance class on ``grid``, uint16; an object has the same id on every grid."""
        return np.asarray(self.ids[name][self.on(grid).owners])

    def on(self, grid: Grid) -> Painted:
        """The scene at the centres of ``grid``'s voxels."""
        atoms, owners = np.empty(grid.shape, np.uint8), np.empty(grid.shape, np.uint16)
        z, y, x = (grid.centres_nm(axis) - self.corner_nm[axis] for axis in range(3))

        def paint(start: int) -> None:
            part = slice(start, start + SLAB_PLANES)
            self._paint_slab((z[part], y, x), atoms[part], owners[part])

        with threadpool_limits(1):
            list(in_threads(WORKERS, paint, range(0, grid.shape[0], SLAB_PLANES)))
        return Painted(grid, atoms, owners, self)

    def _paint_slab(self, axes: Axes, atoms: np.ndarray, owners: np.ndarray) -> None:
        bent = np.stack([ripples.on(axes) for ripples in self.warp])
        for axis, row in enumerate(np.ix_(*axes)):
            bent[axis] += row.astype(np.float32)
        # The noise only ever widens the gap: neighbours must not grow into each other.
        numbers, depth = self.cells.around(bent)
        depth -= np.maximum(self.gap.on(axes), 0)
        inside = depth > 0
        owners[...] = np.where(inside, numbers, 0)
        atoms[...] = np.where(inside, LAYERS["cell"][np.maximum(depth, 0).astype(np.uint16)], ATOM["ecs"])
        canvas = Canvas(axes, bent, atoms, owners, np.zeros_like(depth))
        owner = len(self.cells) + 1
        for nucleus, box in zip(self.nuclei.values(), self._nucleus_boxes, strict=True):
            if window := window_between(axes, *box):
                nucleus.paint(canvas, window, owner)
            owner += 1 + len(nucleus.pores)
        self._paint_organelles(canvas, owner)

    def _paint_organelles(self, canvas: Canvas, first_owner: int) -> None:
        rough = self.roughness.on(canvas.axes)
        segments, numbers, boxes = self._capsules
        z = canvas.axes[0]
        for index in np.flatnonzero((boxes[:, 0, 0] <= z[-1]) & (boxes[:, 1, 0] >= z[0])):
            if window := window_between(canvas.axes, *boxes[index]):
                organelle = self.organelles[numbers[index]]
                radius = rough[window.slices] + np.float32(organelle.radius_nm)
                depth = capsule_depth(canvas.bent[:, *window.slices], segments[index], radius)
                canvas.paint_deeper(window, depth, LAYERS[organelle.kind], first_owner + numbers[index])
