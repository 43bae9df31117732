"""Watershed and size filter of touching objects, beside the guide's chain written out plainly.

    python -m benchmarks.instances [CASE …] [--plain]

``plain`` is distance transform (scipy), peaks and watershed (scikit-image), and a size filter that makes a mask
for each object. Where that takes long its filter is left out, unless --plain is said. Each runs in a process of
its own. The last cases have no counterpart: they show the memory of volumes that the chain cannot hold.
"""

import argparse
import json
import resource
import time
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.processes import in_a_process
from ensemble.core import CHUNK, Box, BoxArray, Grid, MemoryArray, VoxelsZYX, slabs
from ensemble.methods import METHODS, Components, KeptObjects, ReadBlock, Split, SplitInput, Step, drop_small

VOXEL_NM = (8.0, 8.0, 8.0)
MIN_DISTANCE_VOXELS = 10
MIN_SIZE_VOXELS = 200

Labels = NDArray[np.uint32]


@dataclass(frozen=True)
class Case:
    """``read`` makes a block of the mask, ``plain`` says how the guide's chain takes part."""

    side: int
    read: ReadBlock
    plain: str = "none"
    promised: str = ""


def touching(side: int, count: int) -> ReadBlock:
    """Balls on a lattice, jittered and large enough that neighbours touch, and specks between them."""
    rng = np.random.default_rng(side)
    along = int(np.ceil(count ** (1 / 3)))
    cell = side / along
    places = np.array(list(np.ndindex(along, along, along)))[:count]
    centres = (places + 0.5 + rng.uniform(-0.1, 0.1, places.shape)) * cell
    radii = cell * rng.uniform(0.46, 0.54, count)
    centres = np.concatenate([centres, rng.uniform(3, side - 3, (count, 3))])
    radii = np.concatenate([radii, np.full(count, 1.5)])

    def read(box: Box) -> NDArray[np.bool_]:
        out = np.zeros(box.shape, bool)
        low, high = np.array(box.start), np.array(box.stop)
        near = ((centres + radii[:, None] > low) & (centres - radii[:, None] < high)).all(axis=1)
        for centre, radius in zip(centres[near] - low, radii[near], strict=True):
            begin = np.maximum(np.floor(centre - radius), 0).astype(int)
            end = np.minimum(np.ceil(centre + radius) + 1, out.shape).astype(int)
            around = Box(begin, np.maximum(begin, end)).slices
            z, y, x = np.ogrid[around]
            out[around] |= (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2
        return out

    return read


def one_cell(box: Box) -> NDArray[np.bool_]:
    """Everything but thin gaps: one component that fills the crop."""
    z, y, x = np.ogrid[box.slices]
    return ~((z % 200 < 3) & ((y % 100 < 80) | (x % 100 < 80)))


CASES = {
    "256³, 400 touching": Case(256, touching(256, 400), "all", "8x, a third of the memory"),
    "512³, 3,000 touching": Case(512, touching(512, 3000), "without its filter", "4x without its filter, 20x with"),
    "1000³, 2,000 touching": Case(1000, touching(1000, 2000), promised="8 GiB"),
    "800³, one component": Case(800, one_cell, promised="8 GiB"),
}
SHORT = ("256³, 400 touching",)


def objects_of(case: Case, read: ReadBlock) -> KeptObjects:
    """The mask's objects after watershed and size filter; a large case's labels lie compressed."""
    grid = _grid(case)
    method = METHODS.by_name["watershed"]
    parameters = method.parameters.model_validate({"min_distance_voxels": MIN_DISTANCE_VOXELS}).model_dump()
    scratch: BoxArray = _Scratch(grid.shape) if case.plain == "none" else MemoryArray.zeros(grid.shape, np.uint32)
    components = Components.of(grid, read, workers=2)
    split = Split.of(
        SplitInput(components, grid, Step(method, parameters), read, scratch), workers=2, memory_bytes=4 << 30
    )
    return KeptObjects(split, drop_small(split.objects, min_size_voxels=MIN_SIZE_VOXELS))


def ours(case: Case, read: ReadBlock) -> Labels:
    """The labels of ``objects_of``, held whole."""
    objects, grid = objects_of(case, read), _grid(case)
    labels = np.zeros(grid.shape, np.uint32)
    for slab in slabs(grid.shape):
        labels[slab.slices] = objects.read(slab)
    return labels


def _grid(case: Case) -> Grid:
    return Grid((case.side,) * 3, VOXEL_NM, (0, 0, 0))


class _Scratch:
    """A compressed array in memory, as a build has one on disk."""

    def __init__(self, shape: VoxelsZYX) -> None:
        import zarr

        self._array = zarr.create_array({}, shape=shape, chunks=CHUNK, dtype=np.uint32, fill_value=0)

    def __getitem__(self, box: Box) -> Labels:
        return np.asarray(self._array[box.slices], np.uint32)

    def __setitem__(self, box: Box, values: NDArray[Any]) -> None:
        self._array[box.slices] = values


def plain(mask: NDArray[np.bool_], *, filtered: bool) -> Labels:
    """The guide's chain; its size filter acts on the watershed's ids, not on components of the mask."""
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    distance = ndimage.distance_transform_edt(mask)
    peaks = peak_local_max(distance, min_distance=MIN_DISTANCE_VOXELS, labels=mask, exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = np.asarray(watershed(-distance, markers, mask=mask), np.uint32)
    if not filtered:
        return labels
    kept = np.zeros_like(labels)
    for number, object_id in enumerate([i for i in np.unique(labels) if i], start=1):
        own = labels == object_id
        if own.sum() >= MIN_SIZE_VOXELS:
            kept[own] = number
    return kept


def agreement(case: Case) -> dict[str, float]:
    """Objects of both, and the share of voxels whose objects are the same up to ids."""
    mask = case.read(_grid(case).box)
    labels, expected = ours(case, MemoryArray(mask).__getitem__), plain(mask, filtered=True)
    both = (labels > 0) & (expected > 0)
    pairs, counts = np.unique(np.stack([labels[both], expected[both]]), axis=1, return_counts=True)
    order = np.argsort(-counts)
    best: dict[int, int] = {}
    for index in order:
        best.setdefault(int(pairs[0, index]), int(counts[index]))
    components = cc3d.connected_components(mask, connectivity=26)
    return {
        "ours": len(np.unique(labels)) - 1,
        "plain": len(np.unique(expected)) - 1,
        "components": int(components.max()),
        "same": sum(best.values()) / max(int(((labels > 0) | (expected > 0)).sum()), 1),
    }


def measure(name: str, chain: str) -> dict[str, float]:
    """Run one in this process."""
    case = CASES[name]
    if chain == "agreement":
        return agreement(case)
    mask = None if case.plain == "none" else case.read(_grid(case).box)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    if mask is None:
        count = len(objects_of(case, case.read).objects)
        wall = time.perf_counter() - began
    else:
        read = MemoryArray(mask).__getitem__
        labels = ours(case, read) if chain == "ours" else plain(mask, filtered=chain == "all")
        wall = time.perf_counter() - began
        count = len(np.unique(labels)) - 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"wall_s": wall, "peak_gib": peak / 2**20, "base_gib": before / 2**20, "objects": count}


def report(names: list[str], *, always_plain: bool) -> None:
    """A line for each case and chain, with ratios."""
    module = "benchmarks.instances"
    for name in names:
        case = CASES[name]
        got, _ = in_a_process(module, name, "--alone", "ours")
        line = f"{name:24}{got['wall_s']:8.1f} s {got['peak_gib']:6.2f} GiB {got['objects']:7,.0f} objects"
        print(f"{line}   promised: {case.promised}", flush=True)
        chains = [] if case.plain == "none" else ["all"] if case.plain == "all" or always_plain else []
        if case.plain == "without its filter" or chains:
            chains.append("unfiltered")
        for chain in chains:
            other, _ = in_a_process(module, name, "--alone", chain)
            ratios = other["wall_s"] / got["wall_s"], got["peak_gib"] / other["peak_gib"]
            what = "the guide's chain" if chain == "all" else "without its filter"
            print(f"  {what:22}{other['wall_s']:8.1f} s {other['peak_gib']:6.2f} GiB"
                  f"   {ratios[0]:.1f}x as long; ours has {ratios[1]:.2f} of its memory", flush=True)  # fmt: skip
        if case.plain == "all":
            same, _ = in_a_process(module, name, "--alone", "agreement")
            print(
                f"  {same['ours']} objects, the chain's {same['plain']}; {same['same']:.2%} of voxels alike", flush=True
            )


def main(names: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instances", description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default: all of {', '.join(CASES)}")
    parser.add_argument("--plain", action="store_true", help="the guide's whole chain at 512³ too: many minutes")
    parser.add_argument("--alone", choices=["ours", "all", "unfiltered", "agreement"], help="one, here, as JSON")
    arguments = parser.parse_args([] if names is not None else None)
    if arguments.alone:
        print(json.dumps(measure(arguments.cases[0], arguments.alone)))
    else:
        report(list(names or arguments.cases or CASES), always_plain=arguments.plain)


if __name__ == "__main__":
    main()
