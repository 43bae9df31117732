"""What other tools wrote of a crop: found, opened, and taken for what the recipe says that it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ensemble.core import Grid, Target, support
from ensemble.plan import LabelSource, PredictionSource
from ensemble.predict.probabilities import StoredLabels, StoredProbabilities
from ensemble.predict.stored_values import Channel, Fractions, Ids, ReadableArray, Sigmoid, Softmax
from ensemble.storage import GivenGrid, StoredVolume, file_of, open_stored
from ensemble.submission import Submission
from ensemble.support import VolumeError

_ADVICE = (
    "write probabilities from 0 to 1, or say in the source what they are: activation: sigmoid or softmax for raw "
    "outputs, scale: N if N stands for 1"
)


def open_predictions(
    source: PredictionSource, root: str, target: Target, names: Iterable[str]
) -> dict[str, StoredProbabilities]:
    """Probabilities some other tool wrote, by class. Raises VolumeError unless they cover the crop."""
    opened: dict[str, _Opened] = {}
    found = {}
    for name in names:
        place = _filled(source.template, root, target, name)
        if place not in opened:
            volume = _open(source.template, root, target, name, source.grid, channels=len(source.channels))
            opened[place] = _Opened(source, volume, target.grid)
        found[name] = opened[place].of(name)
    return found


@dataclass(frozen=True)
class _Opened:
    """One array of a source, of one class or of all its channels, as it is asked for on ``grid``."""

    source: PredictionSource
    volume: StoredVolume
    grid: Grid

    @cached_property
    def _identities(self) -> list[str]:
        """Of each channel, or of the whole, as far as the crop reaches."""
        window = support(self.volume.grid, self.grid)
        channels = range(len(self.source.channels)) if self.source.channels else (None,)
        return [self.volume.identity(window, channel) for channel in channels]

    def of(self, name: str) -> StoredProbabilities:
        told = f"{self.source.activation} {self.source.scale}"
        if not self.source.channels:
            return self._as_told(self.volume, f"{self._identities[0]} {told}")
        if name not in self.source.channels:
            known = ", ".join(channel for channel in self.source.channels if channel)
            raise VolumeError(
                f"{self.volume.place}: the recipe's channels hold no {name}, only {known}; route it elsewhere"
            )
        index = self.source.channels.index(name)
        of_all = self.source.activation == "softmax"
        identity = " ".join(self._identities if of_all else self._identities[index : index + 1])
        return self._as_told(Channel(self.volume, index), f"{identity} {index} {told}")

    def _as_told(self, stored: ReadableArray, identity: str) -> StoredProbabilities:
        """Stored values as what the source says that they are."""
        source, kind = self.source, stored.dtype.kind
        if source.scale is not None:
            advice = f"scale: {source.scale:g} of its source is not theirs; correct it"
            return StoredProbabilities(Fractions(stored, source.scale, advice), identity)
        if source.activation is not None:
            return StoredProbabilities(Fractions(self._activated(stored), advice="predict it again"), identity)
        if kind == "i":
            raise VolumeError(
                f"{stored.place}: its type {stored.dtype} does not hold probabilities; use uint8 or float, or say "
                "labels: instead of predictions: for masks or ids, or scale: N in the source if N stands for 1"
            )
        if kind == "f":
            return StoredProbabilities(Fractions(stored, advice=_ADVICE), identity)
        return StoredProbabilities(stored, identity, is_assumed=kind == "u")

    def _activated(self, stored: ReadableArray) -> ReadableArray:
        if stored.dtype.kind != "f":
            raise VolumeError(
                f"{stored.place}: its type {stored.dtype} does not hold raw outputs; drop activation: "
                f"{self.source.activation} from its source"
            )
        if self.source.activation == "sigmoid":
            return Sigmoid(stored)
        channels = [Channel(self.volume, index) for index in range(len(self.source.channels))]
        return Softmax(stored, channels, " ".join(self._identities))


def open_labels(source: LabelSource, root: str, target: Target, name: str) -> StoredLabels:
    """Labels of an earlier submission (a zip) or of a label volume."""
    place = _filled(source.template, root, target, name)
    if place.endswith(".zip"):
        if source.grid is not None:
            raise VolumeError(f"{place}: a submission's arrays lie on its crops' grids; drop grid from its source")
        array = Submission.open(Path(place)).array(target.group, name)
        _check_cover(array, target)
        status = Path(place).stat()
        return StoredLabels(Ids(array), f"{place} {status.st_size} {status.st_mtime_ns}")
    volume = _open(source.template, root, target, name, source.grid)
    if volume.dtype.kind not in "uib":
        raise VolumeError(f"{volume.place}: its type {volume.dtype} does not hold labels; use whole numbers")
    return StoredLabels(Ids(volume), volume.identity(support(volume.grid, target.grid)))


def _filled(template: str, root: str, target: Target, name: str, crop: str | None = None) -> str:
    fields = {"root": str(root).rstrip("/"), "dataset": target.dataset, "class": name}
    return template.format(**fields, crop=crop or target.group)


def _open(
    template: str, root: str, target: Target, name: str, given: GivenGrid | None, channels: int = 0
) -> StoredVolume:
    place = _filled(template, root, target, name)
    if "://" not in place and not Path(file_of(place)).exists():
        bare = _filled(template, root, target, name, target.crop)
        place = bare if Path(file_of(bare)).exists() else place
    volume = open_stored(place, crop=target.grid, channels=channels, given=given)
    _check_cover(volume, target)
    return volume


def _check_cover(volume: ReadableArray, target: Target) -> None:
    grid = volume.grid
    for axis, letter in enumerate("zyx"):
        short = max(grid.corner_nm[axis] - target.grid.corner_nm[axis], target.grid.end_nm[axis] - grid.end_nm[axis])
        if short > max(grid.voxel_size_nm[axis], target.grid.voxel_size_nm[axis]) * 1.001:
            raise VolumeError(
                f"{volume.place}: it ends {short:g} nm short of crop {target.crop} along {letter}; "
                "predict the whole crop, or check voxel_size and translation"
            )
