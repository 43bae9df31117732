"""Merging checkpoints in weight space, and choosing what to merge by the official score."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ensemble.build.building import build
from ensemble.core import manifest
from ensemble.plan.request import Request
from ensemble.scoring.evaluation import score
from ensemble.support import yaml_files as yamlfile
from ensemble.support.errors import RegistryError
from ensemble.support.progress import Progress, QuietProgress
from registry import soup, weights
from registry.card import Card
from registry.soup import How, Member
from registry.store import ModelVersion, Store, check_alias


@dataclass(frozen=True)
class Validation:
    """Truth that candidates are scored against: crops that no member was trained on, unless ``leaky``."""

    truth: Path
    manifest: Path
    data_root: str
    leaky: bool = False


@dataclass(frozen=True)
class Soup:
    """The registered soup, and the scores it was chosen by: of each member and of itself, where truth was given."""

    version: ModelVersion
    members: tuple[str, ...]
    scores: dict[str, float] = field(default_factory=dict)
    by_class: dict[str, float] = field(default_factory=dict)


def average_checkpoints(
    members: Sequence[Member],
    name: str,
    how: How,
    store: Store,
    *,
    given: Sequence[float] = (),
    decay: float = 0.9,
    same_origin: bool = False,
    validation: Validation | None = None,
    alias: str | None = None,
    progress: Progress | None = None,
) -> Soup:
    """One model of several, registered with its lineage.

    "greedy" begins with the best member and takes each other one, best first, only if the score rises. Raises
    RegistryError for members that cannot be averaged, and for greedy without truth.
    """
    soup.check(members, same_origin=same_origin)
    soup.shares(how, len(members), given=given, decay=decay)
    soup.card_of(members, name, notes="")
    check_alias(alias)
    progress = progress or QuietProgress()
    if how == "greedy" and validation is None:
        raise RegistryError("--how greedy: chooses by score; give --truth and --manifest")
    with tempfile.TemporaryDirectory(prefix="ensemble-soup-") as folder:
        kitchen = _Kitchen(Path(folder), validation, progress) if validation else None
        if kitchen:
            kitchen.check(members)
        scores = kitchen.of_each(members) if kitchen else {}
        chosen = list(members)
        if how == "greedy":
            chosen = kitchen.greedily(members, scores)
        share = soup.shares(how, len(chosen), given=given, decay=decay)
        file = Path(folder) / "soup.safetensors"
        weights.save(soup.merge(chosen, share), file)
        mix = ", ".join(f"{s:.3g} {m.name}" for s, m in zip(share, chosen, strict=True))
        card = soup.card_of(chosen, name, notes=f"Soup ({how}): {mix}.")
        by_class: dict[str, float] = {}
        if kitchen:
            scores["soup"], by_class = kitchen.score(file, card)
            card = card.model_copy(update={"validation": {k: round(v, 4) for k, v in by_class.items()}})
        version = store.register(file, card, alias=alias)
    return Soup(version, tuple(member.name for member in chosen), scores, by_class)


class _Kitchen:
    """Scores candidates as a submission of their own is scored: built, packed, and held against the truth."""

    def __init__(self, folder: Path, validation: Validation, progress: Progress) -> None:
        self._folder, self._validation, self._progress = folder, validation, progress
        self._store = Store(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        self._tasted = 0

    def check(self, members: Sequence[Member]) -> None:
        """Raise RegistryError where a member was trained on what is to judge it."""
        crops = {target.crop for target in manifest.load_manifest(self._validation.manifest)}
        for member in members:
            seen = sorted(crops & set(member.card.trained_on))
            if seen and not self._validation.leaky:
                raise RegistryError(
                    f"{member.name}: was trained on crop {', '.join(seen)}, so it cannot be judged there; take other"
                    " crops, or say --leaky"
                )

    def of_each(self, members: Sequence[Member]) -> dict[str, float]:
        return {member.name: self.score(member.file, member.card)[0] for member in members}

    def greedily(self, members: Sequence[Member], scores: dict[str, float]) -> list[Member]:
        first, *others = sorted(members, key=lambda member: -scores[member.name])
        chosen, best = [first], scores[first.name]
        for other in others:
            tried = [*chosen, other]
            file = self._folder / "candidate.safetensors"
            weights.save(soup.merge(tried, soup.shares("uniform", len(tried))), file)
            reached, _ = self.score(file, soup.card_of(tried, "candidate", notes=""))
            if reached > best:
                chosen, best = tried, reached
            self._progress.say(f"with {other.name}: {reached:.4f}, {'kept' if chosen is tried else 'left out'}")
        return chosen

    def score(self, file: Path, card: Card) -> tuple[float, dict[str, float]]:
        """The mean score of the classes and that of each, for a submission of this network alone."""
        self._tasted += 1
        place = self._folder / str(self._tasted)
        place.mkdir()
        plain = card.model_copy(update={"name": "candidate", "sha256": None})
        version = self._store.register(file, plain)
        recipe = {"name": "candidate", "sources": {"m": {"model": version.uri}}, "defaults": {"source": "m"}}
        (place / "recipe.yaml").write_text(yamlfile.dump_yaml(recipe))
        judged = self._validation
        targets = manifest.load_manifest(judged.manifest)
        scored = {name for target in targets for name in target.classes}
        named = [name for name in card.classes if name in scored]
        if not named:
            raise RegistryError(f"{judged.manifest}: scores none of the classes of {card.name}; take another")
        request = Request(place / "recipe.yaml", place / "out", judged.manifest, judged.data_root, classes=named)
        build(request, self._store, self._progress)
        by_class = score(request.zip, judged.truth, manifest.select_targets(targets, None, named)).by_class
        if not by_class:
            raise RegistryError(f"{judged.truth}: holds truth for none of {', '.join(named)}; take another")
        return sum(by_class.values()) / len(by_class), by_class
