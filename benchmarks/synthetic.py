"""EM and stored probabilities for every crop of the official manifest, as trained networks would have left them.

A scene is a periodic volume of tissue, 256 voxels to a side: two cells with extracellular space, nuclei with
their envelope and chromatin, mitochondria, a reticulum and the small organelles. A class's probability is its
mask blurred over a voxel or two, with noise near structures, some half-sure false alarms, and next to nothing
elsewhere. A crop is tiled with the scene of its scale, so that each distinct chunk is compressed once only. The EM
is tiled with the same scene, but not from the same corner: it is there to be read and shown.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
from scipy import ndimage

from ensemble.core import CHUNK, Box, Grid, Target, VoxelsZYX, all_classes, atoms_of, nm_zyx, zyx
from ensemble.storage import em_place

SIDE = 256
RECIPE = """
name: full
sources:
  multi: {predictions: "{root}/multi/{dataset}.zarr/{crop}/{class}"}
  mito_4nm: {predictions: "{root}/mito_4nm/{dataset}.zarr/{crop}/{class}"}
defaults: {source: multi, threshold: 0.5}
classes:
  mito:
    source: {mean: {mito_4nm: 2, multi: 1}}
    postprocess: [{watershed: {min_distance_nm: 150}}, {drop_small: {min_size_nm3: 1.0e6}}]
    when:
      - {voxel_size_nm: ">=12", source: multi}
  nuc: {postprocess: [{components: {}}, {drop_small: {min_size_nm3: 1.0e7}}]}
  cell: {postprocess: [{watershed: {min_distance_nm: 500, seeds_from: nuc}}, {drop_small: {min_size_nm3: 1.0e7}}]}
  ves:
    postprocess: [{watershed: {min_distance_nm: 40}}, {drop_small: {min_size_nm3: 2.0e4}}]
    when:
      - {voxel_size_nm: ">=12", postprocess: [{components: {}}]}
  endo: {postprocess: [{watershed: {min_distance_nm: 80}}, {drop_small: {min_size_nm3: 1.0e5}}]}
  lyso: {postprocess: [{components: {}}, {drop_small: {min_size_nm3: 1.0e5}}]}
  ld: {postprocess: [{watershed: {min_distance_nm: 80}}, {drop_small: {min_size_nm3: 1.0e5}}]}
  perox: {postprocess: [{components: {}}, {drop_small: {min_size_nm3: 1.0e5}}]}
  np: {postprocess: [{components: {}}, {drop_small: {min_size_nm3: 1.0e4}}]}
  mt: {postprocess: [{components: {}}, {drop_small: {min_size_nm3: 1.0e4}}]}
consistency: joint
"""
_CODEC = numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.NOSHUFFLE)


def _waves(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """A smooth periodic field with values spread evenly over 0 ... 1."""
    field = ndimage.gaussian_filter(rng.normal(size=(SIDE // 2,) * 3).astype(np.float32), sigma / 2, mode="wrap")
    field = ndimage.zoom(field, 2, order=1, mode="grid-wrap", grid_mode=True)
    knots = np.quantile(field[::4, ::4, ::4], np.linspace(0, 1, 257))
    return np.interp(field, knots, np.linspace(0, 1, 257)).astype(np.float32)


class Scene:
    """Atoms by name, painted one over the other into a periodic volume."""

    def __init__(self, seed: int) -> None:
        self.rng, self._seed = np.random.default_rng(seed), seed
        self.names = ["cyto"]
        self.atoms = np.zeros((SIDE,) * 3, np.uint8)

    def paint(self, name: str, where: np.ndarray) -> None:
        if name not in self.names:
            self.names.append(name)
        self.atoms[where] = self.names.index(name)

    def balls(self, parts: Sequence[tuple[str, float]], count: int, radius: tuple[float, float]) -> None:
        """Ellipsoids in the cytosol; ``parts`` from outside in: (atom, share of the radius it reaches to)."""
        cytosol = np.argwhere(self.atoms[::4, ::4, ::4] == 0) * 4
        for centre in cytosol[self.rng.integers(len(cytosol), size=count)]:
            radii = self.rng.uniform(*radius, 3)
            reach = int(radii.max()) + 2
            index = np.ix_(*((np.arange(c - reach, c + reach + 1) % SIDE) for c in centre))
            z, y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1, -reach : reach + 1]
            r = np.sqrt((z / radii[0]) ** 2 + (y / radii[1]) ** 2 + (x / radii[2]) ** 2)
            view = self.atoms[index]
            free = view == 0
            for name, share in parts:
                if name not in self.names:
                    self.names.append(name)
                view[free & (r <= share)] = self.names.index(name)
            self.atoms[index] = view

    def probability(self, name: str) -> np.ndarray:
        """A class as a network would have it: uint8 (256, 256, 256)."""
        rng = np.random.default_rng([self._seed, all_classes()[name].id])
        belongs = np.array([atom in atoms_of(name) for atom in self.names], np.float32)
        p = 0.97 * ndimage.gaussian_filter(belongs[self.atoms], 0.5, mode="wrap")
        near = (p > 0.01).astype(np.float32)
        p += near * rng.normal(scale=0.04, size=p.shape).astype(np.float32)
        alarms = ndimage.gaussian_filter(rng.normal(size=(SIDE // 8,) * 3), 1, mode="wrap")
        alarms = ndimage.zoom(alarms / alarms.std(), 8, order=1, mode="grid-wrap", grid_mode=True)
        p = np.maximum(p, 0.35 * (alarms > 2.8))
        p = np.maximum(p, np.where(rng.random(p.shape, np.float32) < 0.02, np.float32(0.006), 0))
        return np.asarray(np.rint(255 * np.clip(p, 0, 1)), np.uint8)

    def em(self) -> np.ndarray:
        """What a microscope would have: dark membranes, each inside its own grey, and noise; uint8 (256, 256, 256)."""
        rng = np.random.default_rng([self._seed, 0])
        dark = [name == "pm" or name.endswith(("_mem", "chrom", "_ribo")) for name in self.names]
        shade = np.where(dark, 70, rng.integers(130, 210, len(self.names))).astype(np.float32)
        image = ndimage.gaussian_filter(shade[self.atoms], 0.8, mode="wrap")
        image += rng.normal(scale=9, size=image.shape)
        return np.clip(np.rint(image), 1, 255).astype(np.uint8)


def tissue(seed: int, unit: float) -> Scene:
    """``unit``: size of an organelle's membrane in voxels; organelles scale with it."""
    scene = Scene(seed)
    rng = scene.rng
    cell = _waves(rng, 28)
    scene.paint("ecs", cell < 0.12)
    scene.paint("pm", (cell >= 0.12) & (cell < 0.12 + 0.015 * unit))
    nucleus = np.minimum(_waves(rng, 34), (cell - 0.25) * 4)
    width = 0.01 * unit
    scene.paint("ne_mem", nucleus > 0.8 - 3 * width)
    scene.paint("ne_lum", nucleus > 0.8 - 2 * width)
    scene.paint("ne_mem", nucleus > 0.8 - width)
    pores = _waves(rng, 3) > 0.93
    envelope = (nucleus > 0.8 - 3 * width) & (nucleus <= 0.8)
    scene.paint("np_out", envelope & pores)
    scene.paint("np_in", envelope & (_waves(rng, 2) > 0.97))
    inside = nucleus > 0.8
    chromatin = _waves(rng, 6)
    scene.paint("nucpl", inside)
    scene.paint("hchrom", inside & (chromatin > 0.7))
    scene.paint("echrom", inside & (chromatin < 0.3))
    free = scene.atoms == 0
    reticulum = np.abs(_waves(rng, 10) - 0.5)
    scene.paint("er_mem", free & (reticulum < 0.05 * unit))
    scene.paint("er_lum", free & (reticulum < 0.025 * unit))
    scene.paint("eres_mem", free & (reticulum < 0.05 * unit) & (_waves(rng, 8) > 0.97))
    shell, crowd = [("mem", 1.0), ("lum", 0.7)], 1 / unit**3
    scene.balls([("mito_mem", 1.0), ("mito_lum", 0.85), ("mito_ribo", 0.2)], round(80 * crowd), (10 * unit, 20 * unit))
    for name, count, radius in (
        ("golgi", 40, (5, 11)),
        ("endo", 40, (5, 9)),
        ("lyso", 25, (7, 12)),
        ("ld", 25, (7, 13)),
        ("perox", 30, (6, 9)),
        ("eres", 30, (4, 6)),
        ("ves", 1500, (3, 4.5)),
    ):
        scene.balls(
            [(f"{name}_{part}", share) for part, share in shell],
            round(count * crowd),
            (radius[0] * unit, radius[1] * unit),
        )
    scene.balls([("mt_out", 1.0), ("mt_in", 0.6)], 400, (2, 6))
    return scene


def write(root: Path, targets: Sequence[Target]) -> None:
    """EM and probabilities of all the targets under ``root``, with ``recipe.yaml``."""
    tiles: dict[str, np.ndarray] = {}
    for seed, unit, fitting in ((1, 1.0, (0, 12)), (2, 0.6, (12, 20)), (3, 0.4, (20, 100))):
        crops = [t for t in targets if fitting[0] <= max(t.grid.voxel_size_nm) < fitting[1]]
        scene = tissue(seed, unit)
        tiles |= dict.fromkeys((target.crop for target in crops), scene.em())
        for name in sorted({name for target in crops for name in target.classes}):
            tile = scene.probability(name)
            for target in crops:
                if name in target.classes:
                    nm = max(8.0, round(max(target.grid.voxel_size_nm)))
                    _write(root / "multi", target, name, target.grid.covering((nm,) * 3), tile)
            if name == "mito" and seed == 1:
                fine = ndimage.zoom(tile, 2, order=1, mode="grid-wrap", grid_mode=True)
                for target in crops:
                    _write(root / "mito_4nm", target, name, target.grid.covering((4.0,) * 3), fine)
    for dataset in {target.dataset for target in targets}:
        _write_em(root, [target for target in targets if target.dataset == dataset], tiles)
    (root / "recipe.yaml").write_text(RECIPE.lstrip())


def _write_em(root: Path, targets: Sequence[Target], tiles: Mapping[str, np.ndarray]) -> None:
    """The EM of one dataset: a level for every voxel size of its crops, with chunks where the crops are."""
    image = Path(em_place(root, targets[0].dataset))
    datasets: list[dict[str, Any]] = []
    for voxel_size_nm in sorted({target.grid.voxel_size_nm for target in targets}):
        crops = [target for target in targets if target.grid.voxel_size_nm == voxel_size_nm]
        origin_nm = nm_zyx(at % nm for at, nm in zip(crops[0].grid.origin_nm, voxel_size_nm, strict=True))
        boxes = [Grid((1, 1, 1), voxel_size_nm, origin_nm).box_over(crop.grid) for crop in crops]
        level = Grid(reduce(Box.union, boxes).stop, voxel_size_nm, origin_nm)
        chunks = {chunk for box in boxes for chunk in box.to_chunks(CHUNK).indices()}
        _write_tiled(image / f"s{len(datasets)}", level, tiles[crops[0].crop], chunks)
        transforms = [
            {"type": "scale", "scale": list(voxel_size_nm)},
            {"type": "translation", "translation": list(origin_nm)},
        ]
        datasets.append({"path": f"s{len(datasets)}", "coordinateTransformations": transforms})
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    (image / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    (image / ".zattrs").write_text(
        json.dumps({"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]})
    )


def _write(root: Path, target: Target, name: str, grid: Grid, tile: np.ndarray) -> None:
    place = root / f"{target.dataset}.zarr" / target.group / name
    _write_tiled(place, grid, tile, grid.box.to_chunks(CHUNK).indices())
    attributes = {"voxel_size": list(grid.voxel_size_nm), "translation": list(grid.origin_nm)}
    (place / ".zattrs").write_text(json.dumps(attributes))


def _write_tiled(place: Path, grid: Grid, tile: np.ndarray, chunks: Iterable[VoxelsZYX]) -> None:
    """These chunks of an array that repeats the tile; each distinct one is compressed, and stored, once."""
    place.mkdir(parents=True, exist_ok=True)
    metadata = {
        "zarr_format": 2,
        "shape": list(grid.shape),
        "chunks": list(CHUNK),
        "dtype": "|u1",
        "compressor": _CODEC.get_config(),
        "filters": None,
        "fill_value": 0,
        "order": "C",
    }
    (place / ".zarray").write_text(json.dumps(metadata))
    around = Box.of_shape(tile.shape).to_chunks(CHUNK).shape
    first: dict[VoxelsZYX, Path | None] = {}
    for chunk in chunks:
        key, file = zyx(i % n for i, n in zip(chunk, around, strict=True)), place / ".".join(map(str, chunk))
        file.unlink(missing_ok=True)
        if key in first:
            same = first[key]
            if same is not None:
                file.hardlink_to(same)
            continue
        part = tile[Box.at(key, (1, 1, 1)).of_chunks(CHUNK).slices]
        first[key] = file if part.any() else None
        if part.any():
            file.write_bytes(_CODEC.encode(np.ascontiguousarray(part)))
