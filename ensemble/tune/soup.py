"""Merging checkpoints in weight space, and choosing what to merge by the official score."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ensemble.build import build
from ensemble.core import load_manifest, select_targets
from ensemble.plan import Request
from ensemble.scoring import score
from ensemble.support import Progress, QuietProgress, RegistryError, dump_yaml
from registry import (
    Averaging,
    Card,
    ModelVersion,
    Registry,
    SoupMember,
    average_members,
    averaged_card,
    check_alias,
    check_members,
    member_shares,
    save_weights,
)


@dataclass(frozen=True)
class Validation:
    """Truth that candidates are scored against: crops that no member was trained on, unless ``leaky``.

    ``cache`` is where stored predictions lie that builds share; None: they are kept only while this lasts.
    """

    truth: Path
    manifest: Path
    data_root: str
    leaky: bool = False
    cache: Path | None = None


@dataclass(frozen=True)
class Soup:
    """The registered soup, and the scores it was chosen by: of each member and of itself, where truth was given."""

    version: ModelVersion
    members: tuple[str, ...]
    scores: dict[str, float] = field(default_factory=dict)
    by_class: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AveragingOptions:
    """How members are averaged: ``given`` weights for "weighted", ``decay`` for "ema".

    ``same_origin``: they began as the same weights, whatever is known of that.
    """

    how: Averaging
    given: Sequence[float] = ()
    decay: float = 0.9
    same_origin: bool = False

    def shares(self, members: int) -> list[float]:
        """What each member weighs. Raises RegistryError for weights that cannot be meant."""
        return list(member_shares(self.how, members, given=self.given, decay=self.decay))


def average_checkpoints(
    members: Sequence[SoupMember],
    name: str,
    options: AveragingOptions,
    registry: Registry,
    *,
    validation: Validation | None = None,
    alias: str | None = None,
    progress: Progress | None = None,
) -> Soup:
    """One model of several, registered with its lineage.

    "greedy" begins with the best member and takes each other one, best first, only if the score rises. Raises
    RegistryError for members that cannot be averaged, and for greedy without truth.
    """
    check_members(members, same_origin=options.same_origin)
    options.shares(len(members))
    averaged_card(members, name, notes="")
    check_alias(alias)
    if options.how == "greedy" and validation is None:
        raise RegistryError("--how greedy: chooses by score; give --truth and --manifest")
    with tempfile.TemporaryDirectory(prefix="ensemble-soup-") as folder:
        judge = _Judge(Path(folder), validation, progress or QuietProgress()) if validation else None
        scores: dict[str, float] = {}
        chosen, by_class = list(members), dict[str, float]()
        if judge is not None:
            judge.check(members)
            scores = judge.of_each(members)
            if options.how == "greedy":
                chosen = judge.greedily(members, scores)
        shares = options.shares(len(chosen))
        file = Path(folder) / "soup.safetensors"
        save_weights(average_members(chosen, shares), file)
        mix = ", ".join(f"{share:.3g} {member.name}" for share, member in zip(shares, chosen, strict=True))
        card = averaged_card(chosen, name, notes=f"Soup ({options.how}): {mix}.")
        if judge is not None:
            scores["soup"], by_class = judge.score(file, card)
            card = card.model_copy(update={"validation": {k: round(v, 4) for k, v in by_class.items()}})
        version = registry.register(file, card, alias=alias)
    return Soup(version, tuple(member.name for member in chosen), scores, by_class)


class _Judge:
    """Scores candidates as a submission of their own is scored: built, packed, and held against the truth."""

    def __init__(self, folder: Path, validation: Validation, progress: Progress) -> None:
        self._folder, self._validation, self._progress = folder, validation, progress
        self._registry = Registry(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        self._judged = 0

    def check(self, members: Sequence[SoupMember]) -> None:
        """Raise RegistryError where a member was trained on what is to judge it."""
        crops = {target.crop for target in load_manifest(self._validation.manifest)}
        for member in members:
            seen = sorted(crops & set(member.card.trained_on))
            if seen and not self._validation.leaky:
                raise RegistryError(
                    f"{member.name}: was trained on crop {', '.join(seen)}, so it cannot be judged there; take other"
                    " crops, or say --leaky"
                )

    def of_each(self, members: Sequence[SoupMember]) -> dict[str, float]:
        return {member.name: self.score(member.file, member.card)[0] for member in members}

    def greedily(self, members: Sequence[SoupMember], scores: dict[str, float]) -> list[SoupMember]:
        first, *others = sorted(members, key=lambda member: -scores[member.name])
        chosen, best = [first], scores[first.name]
        for other in others:
            tried = [*chosen, other]
            file = self._folder / "candidate.safetensors"
            save_weights(average_members(tried, member_shares("uniform", len(tried))), file)
            reached, _ = self.score(file, averaged_card(tried, "candidate", notes=""))
            if reached > best:
                chosen, best = tried, reached
            self._progress.say(f"with {other.name}: {reached:.4f}, {'kept' if chosen is tried else 'left out'}")
        return chosen

    def score(self, file: Path, card: Card) -> tuple[float, dict[str, float]]:
        """The mean score of the classes and that of each, for a submission of this network alone."""
        self._judged += 1
        place = self._folder / str(self._judged)
        place.mkdir()
        plain = card.model_copy(update={"name": "candidate", "sha256": None})
        version = self._registry.register(file, plain)
        recipe = {"name": "candidate", "sources": {"m": {"model": version.uri}}, "defaults": {"source": "m"}}
        (place / "recipe.yaml").write_text(dump_yaml(recipe))
        validation = self._validation
        targets = load_manifest(validation.manifest)
        scored = {name for target in targets for name in target.classes}
        named = [name for name in card.classes if name in scored]
        if not named:
            raise RegistryError(f"{validation.manifest}: scores none of the classes of {card.name}; take another")
        request = Request(
            place / "recipe.yaml",
            place / "out",
            validation.manifest,
            validation.data_root,
            classes=named,
            cache=validation.cache,
        )
        build(request, self._registry, self._progress)
        by_class = score(request.zip, validation.truth, select_targets(targets, None, named)).by_class
        if not by_class:
            raise RegistryError(f"{validation.truth}: holds truth for none of {', '.join(named)}; take another")
        return sum(by_class.values()) / len(by_class), by_class
