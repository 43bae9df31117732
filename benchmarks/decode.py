"""Resampling, evidence and joint decoding of 48 classes, beside what the arithmetic and the memory allow.

    python -m benchmarks.decode

The floors are measured in the same run, with the same threads: the plainest NumPy that does the same arithmetic
or moves the same bytes. End to end means from stored uint8 probabilities at 8 nm to the 48 masks at 2 nm, once
of synthetic tissue and once of noise, where no class is ever surely absent.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from threadpoolctl import threadpool_limits

from benchmarks import synthetic
from ensemble.core import Grid, MemoryArray, Target, blocks, codebook_of, official_manifest, resample, support
from ensemble.decode import FINEST_UNIT, CropAssembly, Probability, assemble_group, decoder_for
from ensemble.decode.decoder import _best, _steps  # what a build spends its time in, and has no public name
from ensemble.engine import Here, done
from ensemble.plan import Budget, CropPlan, NamedSource, Route
from ensemble.predict import ArrayInMemory, StoredProbabilities
from ensemble.support import cores, keep_freed_memory

THREADS = cores()
NAMES = official_manifest()[0].classes
COARSE = Grid((65, 65, 65), (8, 8, 8), (4, 4, 4))
FINE = Grid((256, 256, 256), (2, 2, 2), (5, 5, 5))
PIECE = 1 << 16
TILE = (32, 64, 64)


def timed(function: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the quickest of some runs."""
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - began)
    return best


def in_threads(function: Callable[[int], object], count: int) -> None:
    """Run the function on 0 ... count - 1 with all threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(function, range(count)))


def line(what: str, ours: float, floor: float, work: str, floor_is: str) -> None:
    print(f"{what:34}{work:>26}   {ours / floor:5.1f}x of {floor_is}", flush=True)


def interpolation() -> None:
    """8 nm to 2 nm in tiles, as a build does it; its floor is two products and a sum for each voxel and axis."""
    values = np.random.default_rng(0).random(COARSE.shape, np.float32)
    parts = [FINE.sub(part) for part in blocks(FINE.shape, TILE)]
    sources = [support(COARSE, part) for part in parts]

    def ours(index: int) -> None:
        resample(values[sources[index].slices], COARSE.sub(sources[index]), parts[index])

    scratch = np.random.default_rng(0).random((3, math.prod(TILE)), np.float32)

    def plain(_: int) -> None:
        first, second, out = scratch[0], scratch[1], np.empty(math.prod(TILE), np.float32)
        for share in (1, 4, 16):  # x, y, z: the axes before the last have fewer voxels
            end = len(out) // share
            np.multiply(first[:end], np.float32(0.25), out=out[:end])
            out[:end] += second[:end] * np.float32(0.75)

    took, floor = timed(lambda: in_threads(ours, len(parts))), timed(lambda: in_threads(plain, len(parts)))
    rate = f"{FINE.size / took / 1e6:.0f} M class-voxels/s"
    line("interpolation 8 -> 2 nm", took, floor, rate, "two products and a sum along each axis")
    scipy_s = timed(lambda: ndimage.zoom(values, 4, order=1), 1)
    print(f"{'':34}{'':26}   {scipy_s / (took * THREADS):5.1f}x as quick as scipy.ndimage.zoom on one core", flush=True)


def evidence() -> None:
    """Log-odds in whole units; its floor is p / (1 - p), a logarithm and a product."""
    decoder = decoder_for(codebook_of(NAMES), routes(), joint=True)
    p = np.random.default_rng(0).uniform(0.01, 0.99, PIECE).astype(np.float32)
    count = 2000

    def plain(_: int) -> None:
        e = np.subtract(np.float32(1), p)
        np.divide(p, e, out=e)
        np.log(e, out=e)
        np.multiply(e, np.float32(4096), out=e).astype(np.int32)

    took = timed(lambda: in_threads(lambda _: decoder.evidence(5, p), count))
    floor = timed(lambda: in_threads(plain, count))
    line("evidence", took, floor, f"{count * PIECE / took / 1e6:.0f} M class-voxels/s", "log(p / (1 - p)) as int32")


def decision() -> None:
    """The best of the codewords from 48 classes' evidence; its floor is the trie's additions and a maximum a word."""
    book = codebook_of(NAMES)
    words = tuple(range(len(book.words)))
    rng = np.random.default_rng(0)
    given = {i: rng.integers(-5, 5, PIECE).astype(np.int32) * int(1 / FINEST_UNIT) for i in range(len(NAMES))}
    additions, count = len(_steps(book, words)), 200
    took = timed(lambda: in_threads(lambda _: _best(given, PIECE, book, words), count))

    def plain(_: int) -> None:
        total, best = np.zeros(PIECE, np.int32), np.zeros(PIECE, np.int32)
        for index in range(additions):
            np.add(total, given[index % len(NAMES)], out=total)
        for _ in words:
            np.maximum(best, total, out=best)

    floor = timed(lambda: in_threads(plain, count))
    work = f"{count * PIECE / took / 1e6:.0f} Mvoxel/s (promised 20)"
    line(f"decision among {len(words)} codewords", took, floor, work, f"{additions} additions, {len(words)} maxima")


def routes() -> dict[str, Route]:
    return {name: Route(NamedSource("s"), 0.5, 1.0, "linear", (), "") for name in NAMES}


class Masks:
    """Where masks are written to: as many arrays as there are classes, in memory."""

    def __init__(self) -> None:
        self.arrays: dict[str, MemoryArray] = {}

    def __call__(self, name: str, dtype: np.dtype[Any]) -> MemoryArray:
        if name not in self.arrays:
            self.arrays[name] = MemoryArray.zeros(FINE.shape, dtype)
        return self.arrays[name]


def end_to_end(what: str, tile: Callable[[str], NDArray[np.uint8]]) -> None:
    """From stored probabilities to masks, without files."""
    fields = {
        (name, "s"): StoredProbabilities(
            ArrayInMemory(np.ascontiguousarray(tile(name)[COARSE.box.slices]), COARSE, name)
        )
        for name in NAMES
    }
    plan = CropPlan(Target("1", "d", FINE, NAMES), routes(), NAMES, ())
    crop = CropAssembly(plan, Probability(plan, fields), Masks(), Masks(), Budget(8 << 30, THREADS))
    with Here(THREADS) as engine:
        took = timed(lambda: list(done(engine, [assemble_group(crop, NAMES, joint=True)])), 1)
    print(f"{what:34}{FINE.size / took / 1e6:17.1f} Mvoxel/s   (promised 3)", flush=True)


def main() -> None:
    print(f"{THREADS} threads")
    keep_freed_memory()  # as the command line does
    with threadpool_limits(1, "blas"):  # as in a build
        interpolation()
        evidence()
        decision()
        scene, noise = synthetic.tissue(1, 1.0), np.random.default_rng(0)
        end_to_end("end to end, tissue, 48 classes", scene.probability)
        end_to_end("end to end, noise, 48 classes", lambda _: noise.integers(0, 256, COARSE.shape, np.uint8))


if __name__ == "__main__":
    main()
