"""A synthetic data set in the challenge's layout, with truth: three EM volumes of a toy tissue.

phantom-cos     crop 701 to predict, at (1.74, 2, 2) nm, the EM's own voxels
phantom-kidney  crops 601 and 602 to learn from, at 4 nm; 702 to predict, at 2 nm: half the EM's voxels, so
                that centres never coincide
phantom-liver   crop 603 to learn from, at 8 nm; 703 to predict, at 16 nm, at the EM's border
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Zstd

from ensemble.core import (
    Box,
    Grid,
    NmZYX,
    Target,
    atoms_of,
    is_instance,
    nm_zyx,
    official_manifest,
    write_manifest,
    zyx,
)
from ensemble.demo.microscope import Microscope, render
from ensemble.demo.scene import WORKERS, Painted, Scene
from ensemble.demo.shapes import DRAWN
from ensemble.demo.tissue import Anatomy, Seed, grow
from ensemble.support import VolumeError, in_threads, replacing

EM_CHUNK_VOXELS = 64
LABEL_CHUNK_VOXELS = 128
LEVELS = 3


@dataclass(frozen=True)
class Sample:
    """One data set: its EM, the cells that must be there (nm from the EM's corner), and its crops.

    ``training`` are crops of the EM's own voxels.
    """

    dataset: str
    em: Grid
    seeds: tuple[Seed, ...]
    test: Target
    training: dict[str, Box] = field(default_factory=dict)
    density: float = 1.0
    microscope: Microscope = field(default_factory=Microscope)

    @property
    def training_targets(self) -> tuple[Target, ...]:
        """The training crops, for every scored class that the tissue has at all."""
        names = tuple(name for name in _scored_in("557") if atoms_of(name) & DRAWN)
        grids = {crop: _tidy(self.em.sub(part)) for crop, part in self.training.items()}
        return tuple(Target(crop, self.dataset, grid, names) for crop, grid in grids.items())

    def scene(self, key: tuple[int, ...]) -> Scene:
        """The sample's tissue, grown from the seed ``key``; its crops are crowded first."""
        corner, inset_nm = np.array(self.em.corner_nm), 50
        crops = [target.grid for target in (self.test, *self.training_targets)]
        tissue = Anatomy(
            corner_nm=self.em.corner_nm,
            extent_nm=np.array(self.em.end_nm) - corner,
            seeds=self.seeds,
            crowded=tuple((g.corner_nm - corner + inset_nm, g.end_nm - corner - inset_nm) for g in crops),
            density=self.density,
        )
        return grow(tissue, np.random.default_rng(key))


def _scored_in(official_crop: str) -> tuple[str, ...]:
    return next(target.classes for target in official_manifest() if target.crop == official_crop)


def _tidy(grid: Grid) -> Grid:
    """Without the tails of float arithmetic in its origin."""
    return Grid(grid.shape, grid.voxel_size_nm, nm_zyx(round(o, 6) for o in grid.origin_nm))


def _crop(em: Grid, start_nm: NmZYX, shape: tuple[int, int, int], voxel_size_nm: NmZYX) -> Grid:
    """A grid whose lower edges lie ``start_nm`` above the EM's."""
    origin = (c + s + v / 2 for c, s, v in zip(em.corner_nm, start_nm, voxel_size_nm, strict=True))
    return _tidy(Grid(shape, voxel_size_nm, nm_zyx(origin)))


def _cos() -> Sample:
    em = Grid((260, 350, 400), (1.74, 2.0, 2.0), (313.2, 1003.0, 2405.0))
    crop = _crop(em, (52 * 1.74, 170.0, 210.0), (156, 180, 190), em.voxel_size_nm)
    return Sample(
        dataset="phantom-cos",
        em=em,
        seeds=(
            Seed((240, 250, 90), 305, nucleated=True),
            Seed((225, 470, 570), 220),
            Seed((260, 90, 480), 145),
        ),
        test=Target("701", "phantom-cos", crop, _scored_in("557")),
        microscope=Microscope(gain=0.95, offset=8.0),
    )


def _kidney() -> Sample:
    em = Grid((224, 328, 552), (4.0, 4.0, 4.0), (1037.25, 2411.5, 8805.75))
    crop = _crop(em, (212.0, 440.0, 1660.0), (210, 210, 210), (2.0, 2.0, 2.0))
    return Sample(
        dataset="phantom-kidney",
        em=em,
        seeds=(
            Seed((440, 350, 400), 328, nucleated=True),
            Seed((450, 1000, 500), 328),
            Seed((460, 760, 1200), 325, nucleated=True),
            Seed((430, 950, 1800), 300, nucleated=True),
            Seed((400, 420, 1830), 230),
        ),
        training={
            "601": Box((25, 22, 20), (199, 303, 225)),
            "602": Box((25, 35, 230), (199, 290, 380)),
        },
        test=Target("702", "phantom-kidney", crop, _scored_in("557")),
    )


def _liver() -> Sample:
    em = Grid((208, 232, 256), (8.0, 8.0, 8.0), (804.0, 404.0, 12004.0))
    crop = _crop(em, (256.0, 288.0, 896.0), (72, 80, 72), (16.0, 16.0, 16.0))
    return Sample(
        dataset="phantom-liver",
        em=em,
        seeds=(
            Seed((500, 520, 440), 340, nucleated=True),
            Seed((1100, 1300, 440), 340, nucleated=True),
            Seed((800, 800, 1400), 340, nucleated=True),
            Seed((900, 1450, 1900), 330, nucleated=True),
        ),
        training={"603": Box((13, 13, 13), (195, 219, 97))},
        test=Target("703", "phantom-liver", crop, _scored_in("981")),
        density=0.6,
        microscope=Microscope(gain=1.04, offset=-6.0),
    )


SAMPLES = (_cos(), _kidney(), _liver())


def write_phantom(root: Path, *, seed: int = 0, progress: Callable[[str], None] = lambda message: None) -> None:
    """Write EM and training truth under ``root/data``, both manifests, and the test crops' truth.

    The same seed gives the same bytes. ``manifest.csv`` lists the test crops, and ``truth.zarr`` has an array
    for each of its rows; ``train_manifest.csv`` lists the training crops, whose truth lies beside their EM.
    What was there before is replaced, each part when its successor is complete; ``manifest.csv`` is removed
    first and written last, so where it is, the rest is too. ``progress`` is told the name of each data set as
    its turn comes. Raises VolumeError where ``root`` cannot be written.
    """
    write_samples(root, SAMPLES, seed=seed, progress=progress)


def write_samples(
    root: Path, chosen: Sequence[Sample], *, seed: int, progress: Callable[[str], None] = lambda message: None
) -> None:
    """As ``write_phantom``, for the given samples."""
    if seed < 0:
        raise VolumeError(f"seed {seed}: the seed of a phantom is a whole number from 0 up")
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / "manifest.csv").unlink(missing_ok=True)
        with replacing(root / "truth.zarr") as truth:
            zarr.open_group(truth, mode="w", zarr_format=2)
            for number, sample in enumerate(chosen):
                progress(sample.dataset)
                _write_sample(root, truth, sample, (seed, number))
        with replacing(root / "train_manifest.csv") as path:
            write_manifest(path, [target for sample in chosen for target in sample.training_targets])
        with replacing(root / "manifest.csv") as path:
            write_manifest(path, [sample.test for sample in chosen])
    except OSError as error:
        reason = f"cannot write the phantom: {error.strerror or error}"
        raise VolumeError(f"{error.filename or root}: {reason}; choose another folder") from error


def _write_sample(root: Path, truth: Path, sample: Sample, key: tuple[int, ...]) -> None:
    scene = sample.scene(key)
    painted = scene.on(sample.em)
    with replacing(root / "data" / sample.dataset) as folder:
        recon = folder / f"{sample.dataset}.zarr" / "recon-1"
        em, path = render(painted, key, sample.microscope), recon / "em" / "fibsem-uint8"
        write_pyramid(path, em, sample.em, levels=LEVELS, chunk_voxels=EM_CHUNK_VOXELS)
        for target, part in zip(sample.training_targets, sample.training.values(), strict=True):
            group = recon / "labels" / "groundtruth" / target.group
            _each(target.classes, partial(_write_labels, group, painted.sub(part)))
    zarr.open_group(truth / sample.test.group, mode="w", zarr_format=2)
    crop = scene.on(sample.test.grid)
    _each(sample.test.classes, partial(_write_truth, truth / sample.test.group, crop))


def _each(names: Sequence[str], write_one: Callable[[str], None]) -> None:
    list(in_threads(WORKERS, write_one, names))


def _write_labels(group: Path, painted: Painted, name: str) -> None:
    values, grid = truth_of(painted, name), _tidy(painted.grid)
    write_pyramid(group / name, values, grid, levels=1, chunk_voxels=LABEL_CHUNK_VOXELS)


def _write_truth(group: Path, painted: Painted, name: str) -> None:
    grid = painted.grid
    attributes: dict[str, Any] = {
        "voxel_size": list(grid.voxel_size_nm),
        "translation": list(grid.origin_nm),
        "shape": list(grid.shape),
    }
    _write_array(group / name, truth_of(painted, name), LABEL_CHUNK_VOXELS, attributes)


def truth_of(painted: Painted, name: str) -> np.ndarray:
    """A class as truth: 0 and 1, or ids 1, 2, … of the objects in this grid, of the smallest dtype."""
    if not atoms_of(name) & DRAWN:
        return np.zeros(painted.grid.shape, np.uint8)
    return painted.labels(name) if is_instance(name) else painted.mask(name).view(np.uint8)


def halved(volume: np.ndarray) -> np.ndarray:
    """Means of 2x2x2 voxels, rounded half up; an odd plane at the end is left out."""
    z, y, x = (n // 2 for n in volume.shape)
    blocks = volume[: 2 * z, : 2 * y, : 2 * x].reshape(z, 2, y, 2, x, 2)
    return np.asarray((blocks.sum(axis=(1, 3, 5), dtype=np.uint16) + 4) // 8, np.uint8)


def write_pyramid(path: Path, volume: np.ndarray, grid: Grid, *, levels: int, chunk_voxels: int) -> None:
    """Write an OME-NGFF 0.4 image of the levels s0, s1, …; each halves the one before."""
    datasets = []
    for level in range(levels):
        if level:
            volume = halved(volume)
            doubled = nm_zyx(2 * v for v in grid.voxel_size_nm)
            grid = _tidy(Grid(zyx(volume.shape), doubled, grid.covering(doubled).origin_nm))
        _write_array(path / f"s{level}", volume, chunk_voxels, {})
        transforms = [
            {"type": "scale", "scale": list(grid.voxel_size_nm)},
            {"type": "translation", "translation": list(grid.origin_nm)},
        ]
        datasets.append({"path": f"s{level}", "coordinateTransformations": transforms})
    image: dict[str, Any] = {
        "version": "0.4",
        "name": path.name,
        "axes": [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"],
        "datasets": datasets,
        "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}],
    }
    zarr.open_group(path, mode="a", zarr_format=2, attributes={"multiscales": [image]})


def _write_array(path: Path, values: np.ndarray, chunk_voxels: int, attributes: dict[str, Any]) -> None:
    array = zarr.create_array(
        path,
        shape=values.shape,
        dtype=values.dtype,
        chunks=tuple(min(chunk_voxels, n) for n in values.shape),
        compressors=Zstd(level=1),
        fill_value=0,
        zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "/"},
        attributes=attributes,
    )
    if values.any():
        array[...] = values
