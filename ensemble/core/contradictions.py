"""How classes bind each other, and the voxels that break it; masks are bits, 64 voxels to a word."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core.box import VoxelsZYX, zyx
from ensemble.core.classes import all_classes, atoms_of
from ensemble.core.codebook import Codebook, automaton

BROKEN_OTHERWISE = "in another way"

Bits = NDArray[np.uint64]
"""A mask, 64 voxels to a word."""


@dataclass(frozen=True)
class Relation:
    """What no voxel may be: one that has all of some classes and none of others (places in ``book.classes``)."""

    broken_words: str
    has: tuple[int, ...]
    lacks: tuple[int, ...] = ()


@cache
def relations_of(book: Codebook) -> tuple[Relation, ...]:
    """What binds the classes of a codebook: parts to wholes, wholes to parts, strangers to each other.

    Only the nearest: that a part of a part lies in the whole follows. A codeword breaks none; what breaks none is
    a codeword, but where classes overlap without one holding the other.
    """
    names = book.classes
    place = {name: index for index, name in enumerate(names)}
    wholes = {name: [other for other in names if atoms_of(name) < atoms_of(other)] for name in names}
    found = []
    for part in names:
        for whole in wholes[part]:
            if not any(atoms_of(between) < atoms_of(whole) for between in wholes[part]):
                found.append(Relation(f"{part} outside {whole}", (place[part],), (place[whole],)))
    for whole in names:
        parts = [name for name in names if whole in wholes[name]]
        if parts and frozenset().union(*map(atoms_of, parts)) == atoms_of(whole):
            found.append(Relation(f"{whole} without its parts", (place[whole],), tuple(place[part] for part in parts)))
    for one, other in combinations(names, 2):
        follows = [(a, other) for a in wholes[one]] + [(one, b) for b in wholes[other]]
        if not _meet(one, other) and all(_meet(*pair) for pair in follows):
            found.append(Relation(f"{one} and {other} at once", (place[one], place[other])))
    return tuple(found)


def is_relation(words: str) -> bool:
    """Whether these are the words of a relation between classes there are."""
    names = "|".join(map(re.escape, all_classes()))
    return bool(re.fullmatch(rf"({names}) (outside ({names})|and ({names}) at once|without its parts)", words))


def _meet(one: str, other: str) -> bool:
    return not atoms_of(one).isdisjoint(atoms_of(other))


@dataclass
class Violations:
    """Voxels whose set of classes contradicts itself, and of them those that break each relation.

    A voxel may break several relations. Relations by their words, such as "mito_mem outside mito".
    """

    voxels: int = 0
    relations: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Violations") -> None:
        self.voxels += other.voxels
        for words, voxels in other.relations.items():
            self.relations[words] = self.relations.get(words, 0) + voxels


def count_violations(book: Codebook, planes: Sequence[Bits | None], wrong: Bits) -> Violations:
    """How the voxels that are ``violating`` contradict themselves; ``planes`` as there, ``wrong`` its result."""
    violations = Violations(_count(wrong))
    if not violations.voxels:
        return violations
    unexplained = wrong.copy()
    for relation in relations_of(book):
        breaking = _breaking(relation, planes, wrong)
        if voxels := _count(breaking):
            violations.relations[relation.broken_words] = voxels
            unexplained &= ~breaking
    if voxels := _count(unexplained):
        violations.relations[BROKEN_OTHERWISE] = voxels
    return violations


def _breaking(relation: Relation, planes: Sequence[Bits | None], wrong: Bits) -> Bits:
    """Those of the wrong voxels that break a relation."""
    breaking = wrong.copy()
    for index in relation.has:
        plane = planes[index]
        breaking &= np.uint64(0) if plane is None else plane
    for index in relation.lacks:
        plane = planes[index]
        if plane is not None:
            breaking &= ~plane
    return breaking


def _count(bits: Bits) -> int:
    return int(np.bitwise_count(bits).sum())


def pack_bits(values: NDArray[Any]) -> Bits:
    """Which voxels are not 0, in C order, 64 to a word; bits beyond the last voxel are 0."""
    packed = np.packbits(values if values.dtype.itemsize == 1 else values != 0)
    return np.pad(packed, (0, -packed.size % 8)).view(np.uint64)


def violating_voxels(book: Codebook, planes: Sequence[Bits | None]) -> Bits:
    """Bits of the voxels whose set of classes is not a codeword.

    ``planes`` follow ``book.classes``: nonzero voxels as bits (``pack_bits``), None where there are none;
    at least one is not None. Runs the codebook's automaton on 64 voxels at a time.
    """
    some = next(plane for plane in planes if plane is not None)
    # the state of a voxel -> the bits of the voxels in that state; a voxel in none has failed
    states = {1: np.full_like(some, ~np.uint64(0))}
    for table, plane in zip(automaton(book), planes, strict=True):
        following: dict[int, Bits] = {}
        for state, voxels in states.items():
            without, with_it = (int(after) for after in table[state])
            inside, outside = _split(voxels, plane)
            # no two states lead to the same one: a state is all the bits read so far
            if with_it and inside is not None:
                following[with_it] = inside
            if without and outside is not None:
                following[without] = outside
        states = following
    legal: Bits = np.bitwise_or.reduce([np.zeros_like(some), *states.values()])
    return ~legal


def _split(voxels: Bits, plane: Bits | None) -> tuple[Bits | None, Bits | None]:
    """The bits inside and outside of a plane; None for none."""
    if plane is None:
        return None, voxels
    inside = voxels & plane
    if not inside.any():
        return None, voxels
    outside = voxels ^ inside
    return inside, outside if outside.any() else None


@dataclass
class ClassChange:
    """What joint decoding did to one class: voxels above its threshold alone, taken from it and given to it.

    ``most_voxels`` of these changes lie in the tile that begins at ``most_at_voxels``: where it changed most.
    """

    alone: int = 0
    removed: int = 0
    added: int = 0
    most_voxels: int = 0
    most_at_voxels: VoxelsZYX = (0, 0, 0)

    def add(self, other: "ClassChange") -> None:
        self.alone += other.alone
        self.removed += other.removed
        self.added += other.added
        mine, theirs = ((one.most_voxels, [-at for at in one.most_at_voxels]) for one in (self, other))
        if theirs > mine:  # the same whatever the order
            self.most_voxels, self.most_at_voxels = other.most_voxels, zyx(other.most_at_voxels)


@dataclass
class DecodingChanges:
    """What deciding classes together changed, by class, and the voxels that contradicted themselves before."""

    by_class: dict[str, ClassChange] = field(default_factory=dict)
    before: Violations = field(default_factory=Violations)

    def add(self, other: "DecodingChanges") -> None:
        for name, changed in other.by_class.items():
            self.by_class.setdefault(name, ClassChange()).add(changed)
        self.before.add(other.before)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "DecodingChanges":
        """The changes that ``asdict`` made plain."""
        return cls({n: ClassChange(**one) for n, one in plain["by_class"].items()}, Violations(**plain["before"]))
