"""The challenge's scoring as its rules say it, by brute force: for volumes of a few hundred voxels."""

from collections import deque
from dataclasses import dataclass
from itertools import product

import numpy as np

UNMATCHED = 1_000_001


@dataclass(frozen=True)
class Outcome:
    tp: int
    fp: int
    fn: int
    scores: tuple[float, ...]


def parts(prediction: np.ndarray) -> tuple[np.ndarray, int]:
    """26-connected parts of each id, numbered in scan order, by flooding."""
    numbers, count = np.zeros(prediction.shape, int), 0
    steps = [step for step in product((-1, 0, 1), repeat=3) if any(step)]
    for seed in map(tuple, np.argwhere(prediction)):
        if numbers[seed]:
            continue
        count += 1
        numbers[seed] = count
        waiting = deque([seed])
        while waiting:
            here = waiting.popleft()
            for step in steps:
                there = tuple(a + b for a, b in zip(here, step, strict=True))
                inside = all(0 <= a < n for a, n in zip(there, prediction.shape, strict=True))
                if inside and not numbers[there] and prediction[there] == prediction[seed]:
                    numbers[there] = count
                    waiting.append(there)
    return numbers, count


def cost(truth: np.ndarray, predicted: np.ndarray) -> int | None:
    """Of matching two masks; None when they do not overlap."""
    common = int((truth & predicted).sum())
    if not common:
        return None
    iou = np.float32(common / int((truth | predicted).sum()))
    return int((1.0 - float(iou)) * 1_000_000)


def distance(truth: np.ndarray, predicted: np.ndarray, voxel_size: tuple[float, ...]) -> float:
    """Between all pairs of voxels."""
    sides = zip(truth.nonzero(), predicted.nonzero(), voxel_size, strict=True)
    z, y, x = (np.subtract.outer(a, b) * v for a, b, v in sides)
    apart = np.sqrt(z**2 + y**2 + x**2)
    return max(apart.min(axis=0).max(), apart.min(axis=1).max())


def matchings(costs: dict[tuple[int, int], int], ids: list[int]) -> list[dict[int, int]]:
    """All one-to-one matchings (predicted -> truth) of the smallest cost, by enumeration."""
    best, found = None, []

    def extend(rest: list[int], taken: dict[int, int], total: int) -> None:
        nonlocal best, found
        if not rest:
            if best is None or total < best:
                best, found = total, []
            if total == best:
                found.append(dict(taken))
            return
        id_, *others = rest
        extend(others, taken, total + UNMATCHED)
        for (truth, predicted), price in costs.items():
            if truth == id_ and predicted not in taken:
                extend(others, taken | {predicted: id_}, total + price)

    extend(ids, {}, 0)
    return found


def outcomes(truth: np.ndarray, prediction: np.ndarray, voxel_size: tuple[float, ...]) -> list[Outcome] | None:
    """What the rules allow: one outcome for each matching of equal cost; None when the objects are too many."""
    numbers, count = parts(prediction)
    ids = [int(i) for i in np.unique(truth) if i]
    highest = max(ids, default=0)
    if highest and count and count / highest > 10 + 50 * np.exp(-highest / 5):
        return None
    pairs = {(i, n): cost(truth == i, numbers == n) for i in ids for n in range(1, count + 1)}
    costs = {pair: price for pair, price in pairs.items() if price is not None}
    return [_outcome(truth, numbers, count, matched, voxel_size) for matched in matchings(costs, ids)]


def _outcome(truth, numbers, count, matched, voxel_size) -> Outcome:
    limit = min(n * v / 2 for n, v in zip(truth.shape, voxel_size, strict=True))
    renamed = numbers.copy()
    for predicted, id_ in matched.items():
        renamed[numbers == predicted] = id_
    distances = []
    for id_ in (int(i) for i in np.unique(truth) if i):
        there = (renamed == id_).any()
        distances.append(min(limit, distance(truth == id_, renamed == id_, voxel_size)) if there else limit)
    distances += [limit] * (count - len(matched))
    diagonal = float(np.sqrt(sum(v * v for v in voxel_size)))
    scores = tuple(1.01 ** (-float(np.float32(d)) / diagonal) for d in distances)
    return Outcome(len(matched), count - len(matched), len(set(np.unique(truth)) - {0}) - len(matched), scores)
