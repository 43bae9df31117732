"""The pictures of every array that holds, or should hold, something."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ensemble.core import VoxelsZYX, blocks, zyx
from ensemble.report.build_probabilities import BuildProbabilities, ClassProbability
from ensemble.report.facts import FAULT, LIKELY, WRITTEN, CellFacts
from ensemble.report.finished_build import FinishedBuild
from ensemble.report.views import View, box_around, em_window, size_for, views_of, window
from ensemble.storage import Volume
from ensemble.submission import Submission
from ensemble.support import Progress, SubmissionError, cores, in_threads

_SCANNED = (64, 256, 256)
"""Voxels of an empty array's probability that are looked at together."""

_MOST_BLOCKS = 32
"""Of those, so many are interpolated at most: the ones that can hold the highest probability."""


@dataclass(frozen=True)
class Peak:
    """The highest probability found of an empty array, and where it is."""

    probability: float
    at_voxels: VoxelsZYX


def find_peaks(build: FinishedBuild, probabilities: BuildProbabilities) -> dict[str, Peak]:
    """By array ("crop557/mito") that is empty though claimed its peak, where its probability is at hand."""
    peaks = {}
    for place in build.check.empty:
        group, name = place.split("/")
        probability = probabilities.of(group.removeprefix("crop"), name)
        if probability is not None:
            peaks[place] = _peak(probability)
    return peaks


def _peak(of_class: ClassProbability) -> Peak:
    shape, probability, name = of_class.plan.target.grid.shape, of_class.probability, of_class.name
    bounded = [(probability.bounds(name, box)[1], box) for box in blocks(shape, _SCANNED)]
    peak = Peak(0.0, zyx(n // 2 for n in shape))
    for bound, box in sorted(bounded, key=lambda block: -block[0])[:_MOST_BLOCKS]:
        if bound <= peak.probability:
            break
        p = probability.unfilled(name, box)
        if p.max() > peak.probability:
            at = np.unravel_index(int(p.argmax()), p.shape)
            peak = Peak(float(p.max()), zyx(start + int(i) for start, i in zip(box.start, at, strict=True)))
    return peak


@dataclass(frozen=True)
class Gallery:
    """What pictures are made of."""

    build: FinishedBuild
    submission: Submission
    probabilities: BuildProbabilities
    peaks: Mapping[str, Peak]

    def views(self, cells: Mapping[str, Mapping[str, CellFacts]], progress: Progress) -> dict[str, list[View]]:
        """By array its pictures; none of those that are zeros on purpose, or not readable."""
        shown = (WRITTEN, LIKELY, FAULT)
        places = [(group, name) for group, row in cells.items() for name in row if row[name].status in shown]
        edge, across = size_for(len(places))
        datasets = {self.build.plan.crops[group.removeprefix("crop")].dataset for group, _ in places}
        em = {dataset: self.build.em(dataset) for dataset in sorted(datasets)}
        progress.stage("report", max(len(places), 1))
        pictures = {}
        made = in_threads(cores(), partial(self._views, edge=edge, across=across, em=em), places)
        for done, ((group, name), views) in enumerate(zip(places, made, strict=True), start=1):
            if views:
                pictures[f"{group}/{name}"] = views
            progress.at(done, f"{group}/{name}")
        return pictures

    def _views(
        self, place: tuple[str, str], *, edge: int, across: int, em: Mapping[str, Sequence[Volume] | None]
    ) -> list[View]:
        group, name = place
        crop = group.removeprefix("crop")
        grid = self.build.grid(crop)
        peak = self.peaks.get(f"{group}/{name}")
        try:
            array = self.submission.array(group, name)
            if array.shape != grid.shape:
                return []
            box = window(array, edge)
            if box is None and peak is not None:
                box = box_around(peak.at_voxels, edge, grid.shape)
            if box is None:
                return []
            labels = array.read(box)
        except SubmissionError:  # the check tells it
            return []
        levels = em[self.build.plan.crops[crop].dataset]
        values = None if levels is None else em_window(levels, grid, box)
        return views_of(labels, box, grid, values, self.probabilities.of(crop, name), across)
