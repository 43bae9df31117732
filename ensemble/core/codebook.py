"""One decision per voxel for all classes at once, so that parts and wholes never contradict each other.

A *codeword* is a set of claimed classes that one place in a cell can belong to: for every atom, the claimed
classes that contain it. Joint decoding gives each voxel the codeword with the most evidence, so a crop's
whole segmentation is one volume of codeword numbers and every class's mask is a look-up in it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from ensemble.core.classes import all_atoms, all_classes, atoms_of, descendants, is_instance


@dataclass(frozen=True)
class Codebook:
    """The codewords of a set of claimed classes, shortest first, then in the order of the atoms' ids.

    Word 0 is the empty one. ``classes`` are in the order of their ids.
    """

    classes: tuple[str, ...]

    @cached_property
    def words(self) -> tuple[frozenset[str], ...]:
        seen: dict[frozenset[str], None] = {frozenset(): None}
        for atom in all_atoms():
            seen[frozenset(name for name in self.classes if atom in atoms_of(name))] = None
        return tuple(sorted(seen, key=len))

    @cached_property
    def table(self) -> NDArray[np.bool_]:
        """Which word holds which class: bool, (words, classes)."""
        return np.array([[name in word for name in self.classes] for word in self.words], dtype=bool).reshape(
            len(self.words), len(self.classes)
        )

    def holds(self, name: str) -> NDArray[np.bool_]:
        """Look-up from word number to whether the word holds the class: bool, (words,)."""
        return self.table[:, self.classes.index(name)]

    @cached_property
    def instances_of(self) -> tuple[frozenset[str], ...]:
        """The instance classes of each word."""
        return tuple(frozenset(n for n in word if is_instance(n)) for word in self.words)

    def without(self, word: int, lost: str) -> tuple[int, ...]:
        """Words a voxel of ``word`` may take when it loses ``lost``.

        They lack the class, and their instance classes are the old ones less it and its descendants.
        """
        gone = descendants(lost, self.classes) | {lost}
        kept = self.instances_of[word] - gone
        return tuple(
            number for number, other in enumerate(self.words) if lost not in other and self.instances_of[number] == kept
        )


@cache
def codebook_of(claimed: Iterable[str]) -> Codebook:
    """The codebook of a (hashable) set of claimed classes."""
    ids = all_classes()
    return Codebook(tuple(sorted(claimed, key=lambda name: ids[name].id)))


@cache
def automaton(book: Codebook) -> tuple[NDArray[np.uint16], ...]:
    """For each class a table (states, 2) from state and bit to the next state.

    A state stands for the bits read so far; 0 is dead (no codeword begins so), 1 is the start.
    """
    level: dict[tuple[bool, ...], int] = {(): 1}
    tables = []
    for index in range(len(book.classes)):
        following: dict[tuple[bool, ...], int] = {}
        table = np.zeros((len(level) + 1, 2), np.uint16)
        for row in sorted({tuple(bool(b) for b in row[: index + 1]) for row in book.table}):
            following[row] = len(following) + 1
            table[level[row[:-1]], int(row[-1])] = following[row]
        tables.append(table)
        level = following
    return tuple(tables)
