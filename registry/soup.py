"""One network of several with the same layers: the weighted mean of their weights ("model soup").

Wortsman et al. 2022, arXiv:2203.05482. Only weights that began as the same and moved apart by training lie in one
basin of the loss; the mean of others is no better than random, and is refused.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError

from ensemble.support import CheckpointError, RegistryError, counted
from registry import checkpoint, networks, weights
from registry.card import Card
from registry.store import ModelVersion, Registry

Averaging = Literal["uniform", "weighted", "greedy", "ema"]
_ALIKE = ("architecture", "arguments", "planes", "classes", "voxel_size_nm", "normalisation", "activation")


@dataclass(frozen=True)
class SoupMember:
    """Weights with their card; ``ancestry`` names all that they are known to have begun as, themselves included."""

    name: str
    card: Card
    file: Path
    ancestry: frozenset[str]


def registered_member(registry: Registry, version: ModelVersion) -> SoupMember:
    """A registered version as a member; its ancestry is followed through the registry."""
    return SoupMember(
        version.uri, version.card, registry.weights(version), _ancestry(registry, version.card, version.uri)
    )


def member_in_file(file: Path, card: Card) -> SoupMember:
    """A checkpoint as a member; its ancestry is what the file tells, if this tool's training wrote it."""
    settings = checkpoint.read(file).settings
    names = [settings.get(key) for key in ("origin", "fine_tuned_from")]
    return SoupMember(str(file), card, file, frozenset(name for name in names if isinstance(name, str)))


def _ancestry(registry: Registry, card: Card, uri: str) -> frozenset[str]:
    names, waiting = {uri, *({card.origin} if card.origin else ())}, [card]
    while waiting:
        card = waiting.pop()
        for parent in (*((card.fine_tuned_from,) if card.fine_tuned_from else ()), *card.merged_from):
            if parent in names or not parent.startswith("models:/"):
                continue
            names.add(parent)
            try:
                ancestor = registry.resolve(parent).card
            except RegistryError:
                continue  # it was registered elsewhere, or retired: its name is all that is needed
            names |= {ancestor.origin} if ancestor.origin else set()
            waiting.append(ancestor)
    return frozenset(names)


def check_members(members: Sequence[SoupMember], *, same_origin: bool) -> None:
    """Raise RegistryError unless all are one network that began as the same weights.

    ``same_origin`` says that a person vouches for the latter.
    """
    if len(members) < 2:
        raise RegistryError("a soup needs two members or more; name another version or checkpoint")
    first, *others = members
    names = [member.name for member in members]
    for name in names:
        if names.count(name) > 1:
            raise RegistryError(f"{name}: is there {names.count(name)} times; name each member once")
    for other in others:
        for key in _ALIKE:
            if getattr(other.card, key) != getattr(first.card, key):
                raise RegistryError(
                    f"{other.name}: its {key} is {getattr(other.card, key)}, that of {first.name}"
                    f" {getattr(first.card, key)}; only weights of one and the same network can be averaged"
                )
    shared = frozenset.intersection(*(member.ancestry for member in members))
    if not shared and not same_origin:
        stranger = next((m for m in others if not m.ancestry & first.ancestry), others[0])
        raise RegistryError(
            f"{stranger.name}: nothing says that it began as the same weights as {first.name}, and the mean of"
            " networks trained apart is no network; fine-tune both from one model, or say --same-origin if they were"
        )


def member_shares(how: Averaging, count: int, *, given: Sequence[float] = (), decay: float = 0.9) -> list[float]:
    """The share of each of ``count`` members, in their order; they add up to 1.

    For "ema" each member takes 1 - ``decay`` from those before it, the first of all beginning with everything.
    """
    if given and how != "weighted":
        raise RegistryError("--weights: only --how weighted takes them")
    if how == "weighted":
        total = sum(given)
        if len(given) != count or not all(math.isfinite(w) and w > 0 for w in (*given, total)):
            raise RegistryError(f"--weights: give {counted(count, 'number')} above 0, one for each member")
        return [w / total for w in given]
    if how == "ema":
        if not 0 <= decay < 1:
            raise RegistryError(f"--decay {decay:g}: must lie in 0 … 1")
        later = [(1 - decay) * decay ** (count - 1 - i) for i in range(1, count)]
        return [decay ** (count - 1), *later]
    return [1 / count] * count


def average_members(members: Sequence[SoupMember], weight: Sequence[float]) -> dict[str, torch.Tensor]:
    """The mean of the members' weights, summed in float64; whole numbers are those of the last member.

    Raises CheckpointError for a member whose tensors are not those of its card's network.
    """
    total: dict[str, torch.Tensor] = {}
    last: Mapping[str, torch.Tensor] = {}
    blank = networks.blank_for_card(members[0].card)
    for member, share in zip(members, weight, strict=True):
        last = weights.fit(checkpoint.read(member.file), blank)
        for key, value in last.items():
            if value.is_floating_point():
                total[key] = total.get(key, 0) + share * value.double()
    merged = {key: total[key].to(value.dtype) if key in total else value for key, value in last.items()}
    if not all(value.isfinite().all() for value in merged.values() if value.is_floating_point()):
        raise CheckpointError(f"the mean of {', '.join(m.name for m in members)} is not finite; leave members out")
    return merged


def averaged_card(members: Sequence[SoupMember], name: str, *, notes: str) -> Card:
    """The card of a soup: that of its members, with its lineage, and all that any of them has seen.

    Raises RegistryError for what is no name of a model.
    """
    first = members[0].card

    def all_of(key: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value for member in members for value in getattr(member.card, key)))

    origins = frozenset.intersection(*(member.ancestry for member in members))
    changed: dict[str, object] = {
        "name": name,
        "trained_on": all_of("trained_on"),
        "validated_on": all_of("validated_on"),
        "datasets": all_of("datasets"),
        "validation": {},
        "truth_sizes_log2_nm3": {},
        "fine_tuned_from": None,
        "merged_from": tuple(member.name for member in members),
        "origin": min((o for o in origins if not o.startswith("models:/")), default=None),
        "notes": notes,
        "sha256": None,
    }
    try:
        return Card.model_validate({**first.model_dump(), **changed})
    except ValidationError as invalid:
        fault = invalid.errors(include_url=False)[0]
        raise RegistryError(f"--name {name!r}: {fault['msg'].removeprefix('Value error, ')}") from invalid
