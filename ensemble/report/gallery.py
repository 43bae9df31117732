"""The pictures of every array that holds, or should hold, something."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.core.tiling import blocks
from ensemble.decode.mixing import Probability
from ensemble.plan.plan import CropPlan
from ensemble.report import pictures
from ensemble.report.facts import FAULT, LIKELY, WRITTEN, FinishedBuild
from ensemble.submission.reader import Submission
from ensemble.support import machine as resources
from ensemble.support.errors import SubmissionError
from ensemble.support.progress import Progress

_SCANNED = (64, 256, 256)
"""Voxels of an empty array's probability that are looked at together."""

_MOST_BLOCKS = 32
"""Of those, so many are interpolated at most: the ones that can hold the highest probability."""

Fields = Mapping[str, Mapping[tuple[str, str], Any]]
"""By crop ("557") its probabilities by class and source."""


@dataclass(frozen=True)
class Peak:
    """The highest probability found of an empty array, and where it is (z, y, x)."""

    probability: float
    at_voxels: tuple[int, ...]


def peaks(build: FinishedBuild, crops: Mapping[str, CropPlan], fields: Fields) -> dict[str, Peak]:
    """By array ("crop557/mito") that is empty though claimed its peak, where its probability is at hand."""
    found = {}
    for place in build.check["empty"]:
        group, name = place.split("/")
        crop = group.removeprefix("crop")
        if crop in crops and name in crops[crop].claimed:
            found[place] = _peak(Probability(crops[crop], fields[crop]), name, build.grid(crop).shape)
    return found


def _peak(probability: Probability, name: str, shape: Sequence[int]) -> Peak:
    each = [(probability.bounds(name, block)[1], block) for block in blocks(shape, _SCANNED)]
    peak = Peak(0.0, tuple(n // 2 for n in shape))
    for bound, block in sorted(each, key=lambda one: -one[0])[:_MOST_BLOCKS]:
        if bound <= peak.probability:
            break
        p = probability.unfilled(name, block)
        if p.max() > peak.probability:
            at = np.unravel_index(int(p.argmax()), p.shape)
            peak = Peak(float(p.max()), tuple(s.start + int(i) for s, i in zip(block, at, strict=True)))
    return peak


@dataclass(frozen=True)
class Gallery:
    """What pictures are made of; ``crops`` and ``fields`` are empty where there are no probabilities."""

    build: FinishedBuild
    submission: Submission
    crops: Mapping[str, CropPlan]
    fields: Fields
    peaks: Mapping[str, Peak]

    def views(self, cells: Mapping[str, Mapping[str, Any]], progress: Progress) -> dict[str, list[pictures.View]]:
        """By array its pictures; none of those that are zeros on purpose, or not readable."""
        shown = (WRITTEN, LIKELY, FAULT)
        places = [(group, name) for group, row in cells.items() for name in row if row[name]["status"] in shown]
        size, found = pictures.size_for(len(places)), {}
        datasets = {self.build.dataset(group.removeprefix("crop")) for group, _ in places}
        em = {dataset: self.build.em(dataset) for dataset in sorted(datasets)}
        progress.stage("report", max(len(places), 1))
        with ThreadPoolExecutor(resources.cores(), "pictures") as pool:
            made = pool.map(lambda place: self._views(*place, size, em), places)
            for done, (place, views) in enumerate(zip(places, made, strict=True), start=1):
                if views:
                    found["/".join(place)] = views
                progress.at(done, "/".join(place))
        return found

    def _views(self, group: str, name: str, size: tuple[int, int], em: Mapping[str, Any]) -> list[pictures.View]:
        edge, across = size
        crop = group.removeprefix("crop")
        grid, plan = self.build.grid(crop), self.crops.get(crop)
        known = plan if plan is not None and name in plan.claimed else None
        peak = self.peaks.get(f"{group}/{name}")
        try:
            array = self.submission.array(group, name)
            if array.shape != grid.shape:
                return []
            box = pictures.window(array, edge)
            if box is None and peak is not None:
                box = tuple(pictures.span(at, edge, n) for at, n in zip(peak.at_voxels, grid.shape, strict=True))
            if box is None:
                return []
            labels = array.read(box)
        except SubmissionError:  # the check tells it
            return []
        levels = em[self.build.dataset(crop)]
        grey = None if levels is None else pictures.em_window(levels, grid, box)
        return pictures.views(labels, box, grid, grey, known, name, self.fields.get(crop, {}), across)
