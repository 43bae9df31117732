"""How classes bind each other, and the voxels that break it; masks are bits, 64 voxels to a word."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations

import numpy as np

from ensemble.core import classes as taxonomy
from ensemble.core.classes import leaf
from ensemble.core.codebook import Codebook, automaton

OTHERWISE = "in another way"


@dataclass(frozen=True)
class Relation:
    """What no voxel may be: one that has all of some classes and none of others (places in ``book.classes``)."""

    broken_words: str
    has: tuple[int, ...]
    lacks: tuple[int, ...] = ()


@cache
def relations(book: Codebook) -> tuple[Relation, ...]:
    """What binds the classes of a codebook: parts to wholes, wholes to parts, strangers to each other.

    Only the nearest: that a part of a part lies in the whole follows. A codeword breaks none; what breaks none is
    a codeword, but where classes overlap without one holding the other.
    """
    names = book.classes
    place = {name: index for index, name in enumerate(names)}
    wholes = {name: [other for other in names if leaf(name) < leaf(other)] for name in names}
    found = []
    for part in names:
        for whole in wholes[part]:
            if not any(leaf(between) < leaf(whole) for between in wholes[part]):
                found.append(Relation(f"{part} outside {whole}", (place[part],), (place[whole],)))
    for whole in names:
        parts = [name for name in names if whole in wholes[name]]
        if parts and frozenset().union(*map(leaf, parts)) == leaf(whole):
            found.append(Relation(f"{whole} without its parts", (place[whole],), tuple(place[part] for part in parts)))
    for one, other in combinations(names, 2):
        follows = [(a, other) for a in wholes[one]] + [(one, b) for b in wholes[other]]
        if not _meet(one, other) and all(_meet(*pair) for pair in follows):
            found.append(Relation(f"{one} and {other} at once", (place[one], place[other])))
    return tuple(found)


def is_relation(words: str) -> bool:
    """Whether these are the words of a relation between classes there are."""
    names = "|".join(map(re.escape, taxonomy.classes()))
    return bool(re.fullmatch(rf"({names}) (outside ({names})|and ({names}) at once|without its parts)", words))


def _meet(one: str, other: str) -> bool:
    return not leaf(one).isdisjoint(leaf(other))


@dataclass
class Broken:
    """Voxels whose set of classes contradicts itself, and of them those that break each relation.

    A voxel may break several relations. Relations by their words, such as "mito_mem outside mito".
    """

    voxels: int = 0
    relations: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Broken") -> None:
        self.voxels += other.voxels
        for words, voxels in other.relations.items():
            self.relations[words] = self.relations.get(words, 0) + voxels


def broken(book: Codebook, planes: Sequence[np.ndarray | None], wrong: np.ndarray) -> Broken:
    """How the voxels that are ``violating`` contradict themselves; ``planes`` as there, ``wrong`` its result."""
    found = Broken(int(np.bitwise_count(wrong).sum()))
    if not found.voxels:
        return found
    left = wrong.copy()
    for relation in relations(book):
        has = [planes[index] for index in relation.has]
        if any(plane is None for plane in has):
            continue
        breaking = wrong & has[0]
        for plane in has[1:]:
            breaking &= plane
        for index in relation.lacks:
            if planes[index] is not None:
                breaking &= ~planes[index]
        voxels = int(np.bitwise_count(breaking).sum())
        if voxels:
            found.relations[relation.broken_words] = voxels
            left &= ~breaking
    voxels = int(np.bitwise_count(left).sum())
    if voxels:
        found.relations[OTHERWISE] = voxels
    return found


def pack_bits(values: np.ndarray) -> np.ndarray:
    """Which voxels are not 0, in C order, 64 to a word; bits beyond the last voxel are 0."""
    packed = np.packbits(values if values.dtype.itemsize == 1 else values != 0)
    return np.pad(packed, (0, -packed.size % 8)).view(np.uint64)


def violating(book: Codebook, planes: Sequence[np.ndarray | None]) -> np.ndarray:
    """Bits of the voxels whose set of classes is not a codeword.

    ``planes`` follow ``book.classes``: nonzero voxels as bits (``pack_bits``), None where there are none;
    at least one is not None. Runs the codebook's automaton on 64 voxels at a time.
    """
    some = next(plane for plane in planes if plane is not None)
    # the state of a voxel -> the bits of the voxels in that state; a voxel in none has failed
    states = {1: np.full_like(some, ~np.uint64(0))}
    for table, plane in zip(automaton(book), planes, strict=True):
        following = {}
        for state, voxels in states.items():
            without, with_it = (int(after) for after in table[state])
            inside, outside = _split(voxels, plane)
            # no two states lead to the same one: a state is all the bits read so far
            if with_it and inside is not None:
                following[with_it] = inside
            if without and outside is not None:
                following[without] = outside
        states = following
    return ~np.bitwise_or.reduce([np.zeros_like(some), *states.values()])


def _split(voxels: np.ndarray, plane: np.ndarray | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The bits inside and outside of a plane; None for none."""
    if plane is None:
        return None, voxels
    inside = voxels & plane
    if not inside.any():
        return None, voxels
    outside = voxels ^ inside
    return inside, outside if outside.any() else None
