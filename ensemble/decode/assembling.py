"""From stored probabilities to a crop's final arrays: mix, decide, filter, label; task by task.

A crop's whole segmentation is one volume of codeword numbers (see ``core.codebook``); classes that stand alone
are decided in codebooks of one class. Memory is a few blocks and slabs, and a row per object. What is here says which
tasks (``pieces``) are next and notes in a journal what they leave, so that a crop begun before goes on where it was.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ensemble.core import Codebook, DecodingChanges, ancestors_first, is_instance
from ensemble.decode.codeword_volume import Layers
from ensemble.decode.pieces import Bounds, ClassObjects, CropAssembly, Group, Present, box_of
from ensemble.decode.tile_decoding import DecidedBand
from ensemble.engine import Task, Work, alone, gather
from ensemble.methods import Stage
from ensemble.plan import CropPlan, EmptySource, Route
from ensemble.support import EnsembleError


class JournalLike(Protocol):
    """What of a group was finished before, and where to note what is finished now."""

    def noted(self, word: str) -> list[Any]:
        """Everything noted under this word, in order."""
        ...

    def note(self, word: str, value: Any) -> None: ...


class MemoryJournal:
    """A journal for work that is not resumed."""

    def __init__(self) -> None:
        self._entries: dict[str, list[Any]] = {}

    def noted(self, word: str) -> list[Any]:
        return self._entries.get(word, [])

    def note(self, word: str, value: Any) -> None:
        self._entries.setdefault(word, []).append(value)


CUT_BYTES = 512 << 20
"""What cutting a class's components is lent before any is known to take more."""

TASK_CLASS_VOXELS = 1 << 28
"""Voxels times classes of a task that decides or writes, about: some seconds of work, worth sending to a worker."""


class LayoutChanged(EnsembleError):
    """A journal was written under another size of chunks or bands: the group is to be begun anew."""


@dataclass(frozen=True)
class GroupOutcome:
    """What became of a group: what joint decoding changed, and objects written by instance class.

    ``highest``: by "class source" the highest stored value, where it is only assumed what it stands for.
    """

    decoding: DecodingChanges = field(default_factory=DecodingChanges)
    objects: dict[str, int] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=dict)


def groups_of(plan: CropPlan, *, joint: bool) -> list[tuple[str, ...]]:
    """The classes of a crop that are decided together: all claimed ones, or each alone; each empty one alone."""
    claimed = [plan.claimed] if joint and plan.claimed else [(name,) for name in plan.claimed]
    return [*claimed, *((name,) for name in plan.unclaimed)]


@dataclass(frozen=True)
class Told:
    """Who hears how far a group is (what is done, its share), and what a person should know."""

    progress: Callable[[str, float], None] = lambda what, share: None
    say: Callable[[str], None] = lambda line: None


def assemble_group(
    crop: CropAssembly,
    group: Sequence[str],
    *,
    joint: bool,
    journal: JournalLike | None = None,
    key: str = "",
    told: Told | None = None,
) -> Work[GroupOutcome]:
    """Work that writes the arrays of one group of classes (see ``groups_of``); ``key`` is what decides them.

    Raises LayoutChanged where the journal was written under another layout.
    """
    outcome, told = GroupOutcome(), told or Told()
    if all(isinstance(crop.plan.routes[name].source, EmptySource) for name in group):
        for name in group:
            crop.final(name, np.dtype(np.uint8))
        return outcome
    for name in [*group, *_seeding(crop.plan.routes, group)]:
        route = crop.plan.routes[name]
        if route.of_stage(Stage.FILL) and not isinstance(route.source, EmptySource):
            told.progress(f"{name}: holes", 0.0)
            memory_bytes = crop.budget.objects_bytes(crop.plan.target.grid)
            yield from alone(_task("find_holes", f"{key} {name}", memory_bytes, crop, name))
            crop.probability.fill(name, crop.scratch(f"{name} holes", np.dtype(np.uint8)))
    yield from _Assembling(Group(crop, tuple(group), joint), journal or MemoryJournal(), key, told, outcome).run()
    return outcome


def _task(function: str, key: str, memory_bytes: int, *arguments: Any) -> Task:
    what = function.replace("_", "-")
    return Task(f"ensemble.decode.pieces:{function}", arguments, f"{function} {key}", False, what, memory_bytes)


def _seeding(routes: Mapping[str, Route], group: Sequence[str]) -> list[str]:
    """Classes outside the group that seeds are taken from."""
    seeds = (step.seeds_from for name in group for step in routes[name].steps)
    return list(dict.fromkeys(name for name in seeds if name is not None and name not in group))


class _Assembling:
    """Classes decided together: their codebook, and the volume of its codewords."""

    def __init__(self, group: Group, journal: JournalLike, key: str, told: Told, outcome: GroupOutcome) -> None:
        self.group, self.crop, self.journal, self.key = group, group.crop, journal, key
        self.told, self.outcome = told, outcome
        self.volume = group.volume()
        self.bands = group.decoding(self.volume).bands()
        self.deciding_bytes = group.crop.budget.deciding_bytes

    def run(self) -> Work[None]:
        self._agree_on_layout()
        yield from self._decide()
        yield from self._find_all_objects()
        written = {entry["class"] for entry in self.journal.noted("objects") if entry["written"]}
        yield from self._write_masks([name for name in self.group.book.classes if name not in written])

    def _agree_on_layout(self) -> None:
        layout = [list(sizes) for sizes in self.group.decoding(self.volume).layout()]
        noted = self.journal.noted("layout")
        if noted and noted[0] != layout:
            raise LayoutChanged(f"crop {self.crop.plan.target.crop} was begun in other pieces")
        if not noted:
            self.journal.note("layout", layout)

    # -- deciding

    def _decide(self) -> Work[None]:
        before = [DecidedBand.of(entry) for entry in self.journal.noted("decided")]
        decided = {band.number: band for band in before}
        left = sorted(set(range(len(self.bands))) - decided.keys())

        def note(task: Task, bands: list[DecidedBand]) -> None:
            for band in bands:
                self.journal.note("decided", band.as_plain())
                decided[band.number] = band
            what = "decide" if self.group.joint else f"{self.group.book.classes[0]}: decide"
            self.told.progress(what, (len(decided) - len(before)) / len(left))

        yield from gather(
            (
                _task("decide_bands", f"{self.key} {numbers}", self.deciding_bytes, self.group, numbers)
                for numbers in self._of_a_task(left, max((band.size for band in self.bands), default=1))
            ),
            note,
        )
        for number in sorted(decided):
            self._take(decided[number])

    def _of_a_task(self, items: Sequence[Any], voxels: int) -> Iterator[tuple[Any, ...]]:
        """Items of so many voxels each in turn, as many as make a task that is worth sending."""
        count = max(1, TASK_CLASS_VOXELS // (voxels * len(self.group.classes)))
        return (tuple(items[at : at + count]) for at in range(0, len(items), count))

    def _take(self, decided: DecidedBand) -> None:
        for block, words in zip(self.volume.blocks_in(self.bands[decided.number]), decided.words, strict=True):
            self.volume.now_hold(block, words)
        self.outcome.decoding.add(decided.changes)
        for key, value in decided.highest.items():
            self.outcome.highest[key] = max(value, self.outcome.highest.get(key, 0))

    # -- objects

    def _find_all_objects(self) -> Work[None]:
        for entry in self.journal.noted("finished"):
            self._now_hold(entry["class"], entry["lost"], entry["words"])
        finished = {entry["class"] for entry in self.journal.noted("finished")}
        for entry in self.journal.noted("objects"):  # found before it was interrupted: as then, before others are
            if entry["class"] not in finished:
                yield from self._lose(entry["class"])
                finished.add(entry["class"])
        names = [
            name
            for name in sorted(ancestors_first(self.group.book.classes), key=is_instance)  # semantic ones first
            if name not in finished and self._has_objects(name)
        ]
        for together in _independent(self.group.book, names, self._filters):
            yield from gather([self._finding(name) for name in together], self._note_objects)
            for name in together:
                yield from self._lose(name)
        objects = {entry["class"]: entry["objects"] for entry in self.journal.noted("objects")}
        self.outcome.objects.update({name: objects[name] for name in self.group.book.classes if name in objects})

    def _has_objects(self, name: str) -> bool:
        steps = self.crop.plan.routes[name].of_stage(Stage.LABEL, Stage.FILTER)
        return any(step.labels or step.method.stage is Stage.FILTER for step in steps)

    def _filters(self, name: str) -> bool:
        return bool(self.crop.plan.routes[name].of_stage(Stage.FILTER))

    def _finding(self, name: str) -> Task:
        self.told.progress(f"{name}: objects", 0.0)
        layers, present = self.volume.layers, self.volume.present.copy()  # as it is now, however late it is sent
        cuts = any(not step.indivisible for step in self.crop.plan.routes[name].of_stage(Stage.LABEL))
        return self._find_task(min(CUT_BYTES, self.crop.budget.split_bytes) if cuts else 0, name, layers, present)

    def _find_task(self, cut_bytes: int, name: str, layers: Layers, present: Present) -> Task:
        memory_bytes = self.crop.budget.objects_bytes(self.crop.grid, cut_bytes)
        key = f"{self.key} {name} {cut_bytes}"
        return _task("find_objects", key, memory_bytes, self.group, name, layers, present, cut_bytes)

    def _note_objects(self, task: Task, found: ClassObjects | int) -> list[Task]:
        """Note them; where they take more memory to be cut than was lent, have it done with so much."""
        _, name, layers, present, _ = task.arguments
        if isinstance(found, int):
            return [self._find_task(found, name, layers, present)]
        for line in found.said:
            self.told.say(line)
        entry = {"class": name, "objects": found.objects, "written": found.written, "lost": found.lost}
        self.journal.note("objects", entry)
        return []

    def _lose(self, name: str) -> Work[None]:
        """Decide again the voxels of the objects that were dropped."""
        (lost,) = (entry["lost"] for entry in self.journal.noted("objects") if entry["class"] == name)
        words: dict[int, list[int]] = {}

        def take(task: Task, of_task: list[list[int]]) -> None:
            words.update(zip((lost.index(bounds) for bounds in task.arguments[3]), of_task, strict=True))

        by_band = [[bounds for bounds in lost if box_of(bounds).within(band)] for band in self.bands]
        tasks = [
            _task(
                "decide_again",
                f"{self.key} {name} {some[0]}",
                self.deciding_bytes,
                self.group,
                name,
                self.volume.layers,
                some,
            )
            for some in by_band
            if some
        ]
        yield from gather(tasks, take)
        in_order = [words[number] for number in range(len(lost))]
        self._now_hold(name, lost, in_order)
        self.journal.note("finished", {"class": name, "lost": lost, "words": in_order})

    def _now_hold(self, name: str, lost: Sequence[Bounds], words: Sequence[Sequence[int]]) -> None:
        chunks = [box_of(bounds) for bounds in lost]
        self.volume.lose(name, chunks)
        for chunk, words_now in zip(chunks, words, strict=True):
            self.volume.now_hold(chunk, words_now)

    # -- writing

    def _write_masks(self, names: Sequence[str]) -> Work[None]:
        for name in names:
            self.crop.final(name, np.dtype(np.uint8))
        finished = set(self.journal.noted("masks"))
        left = [
            (number, [list(block.start), list(block.stop)], words.tolist())
            for number, block in enumerate(self.volume.blocks())
            if number not in finished and (words := self.volume.words_of(block)).any()
        ]
        written = 0

        def note(task: Task, _: None) -> None:
            nonlocal written
            for number in numbers_of[task.key]:
                self.journal.note("masks", number)
            written += len(numbers_of[task.key])
            self.told.progress("masks", written / len(left))

        numbers_of: dict[str, list[int]] = {}
        tasks = []
        for some in self._of_a_task(left, int(np.prod(self.volume.chunk))):
            chunks = [(bounds, words) for _, bounds, words in some]
            key = f"{self.key} {some[0][0]} {some[-1][0]}"
            layers = self.volume.layers
            tasks.append(_task("write_masks", key, self.deciding_bytes, self.group, names, layers, chunks))
            numbers_of[tasks[-1].key] = [number for number, _, _ in some]
        yield from gather(tasks, note)


def _independent(book: Codebook, names: Sequence[str], filters: Callable[[str], bool]) -> Iterator[list[str]]:
    """Classes in turn, together where what one of them loses leaves the masks of the later ones as they are."""
    together: list[str] = []
    changed: frozenset[str] = frozenset()
    for name in names:
        if name in changed:
            yield together
            together, changed = [], frozenset()
        together.append(name)
        if filters(name):
            changed |= _changed_without(book, name)
    if together:
        yield together


def _changed_without(book: Codebook, lost: str) -> frozenset[str]:
    """The classes whose masks may change where some voxels lose one."""
    changed: frozenset[str] = frozenset()
    for number, word in enumerate(book.words):
        if lost in word:
            changed = changed.union(*(word ^ book.words[other] for other in book.without(number, lost)))
    return changed
