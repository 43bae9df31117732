"""What changed from one submission to another: values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ensemble.core import Box


@dataclass(frozen=True)
class ArrayChange:
    """One array, or a class, in both submissions: foreground voxels by where they are, and objects.

    ``moved`` voxels are foreground in both, in objects that are not the same (IoU at most one half); ``kept`` objects
    are the same in both. Objects are None where nobody counted, ``kept`` where there are no ids. ``matches``: id in B
    -> id in A. ``busiest`` is the chunk that differs most.
    """

    place: str
    both: int = 0
    only_a: int = 0
    only_b: int = 0
    moved: int = 0
    objects_a: int | None = 0
    objects_b: int | None = 0
    kept: int | None = 0
    busiest: Box | None = None
    matches: Mapping[int, int] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        return self.only_a + self.only_b

    @property
    def any(self) -> bool:
        return bool(self.changed or self.moved)

    def plus(self, other: "ArrayChange") -> "ArrayChange":
        """Both together, under this one's name."""
        return ArrayChange(
            self.place,
            self.both + other.both,
            self.only_a + other.only_a,
            self.only_b + other.only_b,
            self.moved + other.moved,
            _sum(self.objects_a, other.objects_a),
            _sum(self.objects_b, other.objects_b),
            _sum(self.kept, other.kept),
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


@dataclass(frozen=True)
class Difference:
    """``missing`` are arrays that only one has; ``scores``: key -> score in A and B, where both were scored.

    ``routes``: class -> how A and B make it, in words, where both are builds and it differs.
    """

    a: Path
    b: Path
    changes: tuple[ArrayChange, ...]
    missing: tuple[str, ...]
    scores: Mapping[str, tuple[float, float]]
    routes: Mapping[str, tuple[str, str]]

    def by_class(self) -> dict[str, ArrayChange]:
        """The changes of each class over its crops, the largest first."""
        total: dict[str, ArrayChange] = {}
        for change in self.changes:
            name = change.place.split("/")[1]
            total[name] = total.get(name, ArrayChange(name)).plus(change)
        return dict(sorted(total.items(), key=lambda item: (-item[1].changed, -item[1].moved)))
