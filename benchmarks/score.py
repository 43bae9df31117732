"""How long scoring takes and what it needs, beside the official chain restated plainly.

    python -m benchmarks.score [CASE …] [--threads N] [--plain]

Each case runs in a process of its own, so that its peak memory, inputs and imports included, is its own.
``plain`` relabels, matches, and then masks every object over boxes padded by half of the crop, as the official
scorer does; where that ends in a few seconds, the two are run and compared side by side. With --plain they are
in all cases of instances, which takes many minutes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import cc3d
import numpy as np
from ortools.graph.python import min_cost_flow
from scipy.ndimage import distance_transform_edt, find_objects

from ensemble.scoring import instance_scores, semantic_scores

VOXEL_NM = (1.74, 2.0, 2.0)

Volumes = tuple[np.ndarray, np.ndarray]
Boxes = Sequence[tuple[slice, ...] | None]
"""As scipy finds them, by id."""


@dataclass(frozen=True)
class Case:
    """``seconds`` and ``gib``: what it may take, where that was promised; ``plain``: run the official chain too."""

    volumes: Callable[[], Volumes]
    instance: bool = True
    seconds: float | None = None
    gib: float | None = None
    plain: bool = False


@dataclass(frozen=True)
class Measured:
    wall_s: float
    cpu_s: float
    cpu_ns_per_voxel: float
    peak_gib: float
    score: float


def balls(side: int, count: int) -> Volumes:
    """Bodies on a lattice, and a prediction that shifts, swells, frays, misses and makes up some of them."""
    random = np.random.default_rng(side)
    truth, prediction = (np.zeros((side,) * 3, np.uint16) for _ in range(2))
    along = max(2, int(np.ceil(count ** (1 / 3))))
    cell = side / along
    for number, place in enumerate(np.ndindex(along, along, along), start=1):
        if number > count:
            break
        centre, radius = (np.array(place) + 0.5) * cell, cell * random.uniform(0.35, 0.5)
        _paint(truth, centre, radius, number)
        if random.random() < 0.03:
            continue
        shift = random.uniform(-0.08, 0.08, 3) * cell
        _paint(prediction, centre + shift, radius * random.uniform(0.9, 1.1), number)
        tip = random.normal(size=3)
        _paint(prediction, centre + tip / np.linalg.norm(tip) * radius * 1.1, radius * 0.2, number)
        _paint(prediction, random.uniform(0, side, 3), 1.5, number)
    return truth, prediction


def giant(side: int) -> Volumes:
    """Everything is one predicted object, whose match is in the middle and not small."""
    truth, _ = balls(side, 300)
    _paint(truth, np.full(3, side / 2), side * 0.3, 301)
    return truth, np.ones_like(truth)


def masks(side: int) -> Volumes:
    truth, prediction = balls(side, 200)
    return (truth > 0).view(np.uint8), (prediction > 0).view(np.uint8)


def _paint(volume: np.ndarray, centre: np.ndarray, radius: float, number: int) -> None:
    low = np.maximum(np.floor(centre - radius).astype(int), 0)
    high = np.minimum(np.ceil(centre + radius).astype(int) + 1, volume.shape)
    z, y, x = np.ogrid[tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))]
    inside = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2
    volume[tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))][inside] = number


CASES = {
    "instances 128³, 38 objects": Case(lambda: balls(128, 38), plain=True),
    "instances 256³, 300 objects": Case(lambda: balls(256, 300), seconds=1.5, gib=0.8),
    "instances 512³, 2,500 objects": Case(lambda: balls(512, 2500), seconds=15, gib=2.5),
    "one giant object 256³": Case(lambda: giant(256), seconds=5),
    "masks 600³": Case(lambda: masks(600), instance=False, seconds=3),
}


def ours(case: Case, truth: np.ndarray, prediction: np.ndarray, threads: int) -> float:
    if not case.instance:
        return _number(semantic_scores(truth, prediction)["iou"])
    return _number(instance_scores(truth, prediction, VOXEL_NM, threads=threads)["combined_score"])


def _number(score: float | int | str | None) -> float:
    assert isinstance(score, float | int)  # no case has too many objects to be matched
    return float(score)


def plain(truth: np.ndarray, prediction: np.ndarray) -> float:
    """The class score of one crop by the official chain."""
    objects, count = cc3d.connected_components(prediction, connectivity=26, return_N=True)
    matched = _matched(truth, objects, count)
    for predicted, mask in [(predicted, objects == predicted) for predicted in matched]:
        objects[mask] = matched[predicted]
    limit = min(n * v / 2 for n, v in zip(truth.shape, VOXEL_NM, strict=True))
    ids = [int(i) for i in np.unique(truth) if i]
    truth_boxes, boxes = find_objects(truth), find_objects(objects)
    distances = [_distance_nm(truth, objects, i, (truth_boxes, boxes), limit) for i in ids]
    distances += [limit] * (count - len(matched))
    scores = 1.01 ** (-np.array(distances, np.float32).astype(float) / np.linalg.norm(VOXEL_NM))
    f1 = 2 * len(matched) / (len(ids) + count)
    return float(np.sqrt(f1 * scores.mean()))


def _matched(truth: np.ndarray, objects: np.ndarray, count: int) -> dict[int, int]:
    """Predicted object -> truth id."""
    highest = int(truth.max())
    both = (truth > 0) & (objects > 0)
    pairs, common = np.unique(np.stack([truth[both], objects[both]]), axis=1, return_counts=True)
    sizes, predicted_sizes = np.bincount(truth.ravel()), np.bincount(objects.ravel())
    sink = 1 + highest + count
    arcs = [(0, 1 + i, 0) for i in range(highest)] + [(1 + i, sink, 1_000_001) for i in range(highest)]
    for (i, n), shared in zip(pairs.T.tolist(), common.tolist(), strict=True):
        iou = np.float32(shared / (int(sizes[i]) + int(predicted_sizes[n]) - shared))
        arcs.append((i, highest + n, int((1.0 - float(iou)) * 1_000_000)))
    arcs += [(1 + highest + n, sink, 0) for n in range(count)]
    solver = min_cost_flow.SimpleMinCostFlow()
    for tail, head, cost in arcs:
        solver.add_arc_with_capacity_and_unit_cost(tail, head, 1, cost)
    solver.set_node_supply(0, highest)
    solver.set_node_supply(sink, -highest)
    solver.solve()
    first, last = 2 * highest, 2 * highest + len(common)
    return {solver.head(a) - highest: solver.tail(a) for a in range(first, last) if solver.flow(a)}


def _distance_nm(truth: np.ndarray, objects: np.ndarray, id_: int, boxes: tuple[Boxes, Boxes], limit: float) -> float:
    both = [box for b in boxes if id_ <= len(b) and (box := b[id_ - 1]) is not None]
    where = []
    for axis, v in enumerate(VOXEL_NM):
        pad = int(np.ceil(limit / v)) + 2
        start, stop = min(b[axis].start for b in both), max(b[axis].stop for b in both)
        where.append(slice(max(start - pad, 0), stop + pad))
    first, second = truth[tuple(where)] == id_, objects[tuple(where)] == id_
    if not second.any():
        return limit
    there = distance_transform_edt(~second, sampling=VOXEL_NM)[first].max()
    back = distance_transform_edt(~first, sampling=VOXEL_NM)[second].max()
    return min(max(float(there), float(back)), limit)


def measure(name: str, chain: str, threads: int) -> Measured:
    """Run one case in this process."""
    case = CASES[name]
    truth, prediction = case.volumes()
    wall, cpu = time.perf_counter(), time.process_time()
    got = plain(truth, prediction) if chain == "plain" else ours(case, truth, prediction, threads)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Measured(wall, cpu, cpu / truth.size * 1e9, peak, got)


def _in_a_process(name: str, chain: str, threads: int) -> Measured:
    command = [sys.executable, "-m", "benchmarks.score", name, "--threads", str(threads), "--alone", chain]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Measured(**json.loads(done.stdout))


def report(names: list[str], threads: int, *, always_plain: bool) -> None:
    """A line per case; of cases run plainly too, the ratio and how far the scores are apart."""
    heads = (
        ("wall s", 9),
        ("cpu s", 9),
        ("ns/voxel", 10),
        ("peak GiB", 10),
        ("promised", 18),
        ("plain s", 10),
        ("ratio", 8),
    )
    sys.stdout.write(f"{'case':32}" + "".join(f"{head:>{width}}" for head, width in heads) + "\n")
    for name in names:
        case, got = CASES[name], _in_a_process(name, "ours", threads)
        promised = ", ".join(f"{n:g} {unit}" for n, unit in ((case.seconds, "s"), (case.gib, "GiB")) if n)
        line = (
            f"{name:32}{got.wall_s:9.2f}{got.cpu_s:9.2f}{got.cpu_ns_per_voxel:10.0f}{got.peak_gib:10.2f}{promised:>18}"
        )
        if case.plain or (always_plain and case.instance):
            other = _in_a_process(name, "plain", threads)
            apart = abs(other.score - got.score)
            line += f"{other.wall_s:10.1f}{other.wall_s / got.wall_s:8.0f}   scores {apart:.0e} apart"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score", description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default: all of {', '.join(CASES)}")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--plain", action="store_true", help="the official chain on all cases of instances")
    parser.add_argument("--alone", choices=["ours", "plain"], help="run one case here, and print JSON")
    arguments = parser.parse_args(argv)
    if arguments.alone:
        sys.stdout.write(json.dumps(asdict(measure(arguments.cases[0], arguments.alone, arguments.threads))))
    else:
        report(arguments.cases or list(CASES), arguments.threads, always_plain=arguments.plain)


if __name__ == "__main__":
    main()
