"""What deciding classes together changes, against each class alone: p > t."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ensemble.core.contradictions import Broken


@dataclass
class Changed:
    """What joint decoding did to one class: voxels above its threshold alone, taken from it and given to it.

    ``most_voxels`` of these changes lie in the tile that begins at ``most_at_voxels``: where it changed most.
    """

    alone: int = 0
    removed: int = 0
    added: int = 0
    most_voxels: int = 0
    most_at_voxels: tuple[int, ...] = (0, 0, 0)

    def add(self, other: "Changed") -> None:
        self.alone += other.alone
        self.removed += other.removed
        self.added += other.added
        mine, theirs = ((one.most_voxels, [-at for at in one.most_at_voxels]) for one in (self, other))
        if theirs > mine:  # the same whatever the order
            self.most_voxels, self.most_at_voxels = other.most_voxels, tuple(other.most_at_voxels)


@dataclass
class Changes:
    """What deciding classes together changed, by class, and the voxels that contradicted themselves before."""

    by_class: dict[str, Changed] = field(default_factory=dict)
    before: Broken = field(default_factory=Broken)

    def add(self, other: "Changes") -> None:
        for name, changed in other.by_class.items():
            self.by_class.setdefault(name, Changed()).add(changed)
        self.before.add(other.before)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Changes":
        """The changes that ``asdict`` made plain."""
        return cls({n: Changed(**one) for n, one in plain["by_class"].items()}, Broken(**plain["before"]))
