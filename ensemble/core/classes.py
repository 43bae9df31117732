"""The challenge's classes: which are scored as instances, and which atoms each is made of."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml


@dataclass(frozen=True)
class OrganelleClass:
    """One class; ``parts`` are names of atoms, empty for an atom."""

    name: str
    id: int
    instance: bool
    parts: tuple[str, ...]


@cache
def all_classes() -> dict[str, OrganelleClass]:
    """All classes by name, in the order of their ids."""
    table = yaml.safe_load(files("ensemble.core").joinpath("classes.yaml").read_text())
    rows = [
        OrganelleClass(name, row["id"], row.get("instance", False), tuple(row.get("parts", ())))
        for name, row in table.items()
    ]
    return {row.name: row for row in sorted(rows, key=lambda row: row.id)}


def is_instance(name: str) -> bool:
    """Whether the class is scored object by object."""
    return all_classes()[name].instance


@cache
def atoms_of(name: str) -> frozenset[str]:
    """The atoms of a class; an atom is its own."""
    parts = all_classes()[name].parts
    return frozenset(parts) if parts else frozenset([name])


@cache
def all_atoms() -> tuple[str, ...]:
    """All classes without parts, in the order of their ids."""
    return tuple(name for name, row in all_classes().items() if not row.parts)


def descendants(name: str, among: Iterable[str]) -> frozenset[str]:
    """The classes ``among`` the given whose atoms are a proper subset of ``name``'s."""
    return frozenset(other for other in among if atoms_of(other) < atoms_of(name))


def ancestors_first(names: Iterable[str]) -> list[str]:
    """Classes ordered so that none comes after a class it contains; equals in the order of their ids."""
    return sorted(names, key=lambda name: (-len(atoms_of(name)), all_classes()[name].id))
