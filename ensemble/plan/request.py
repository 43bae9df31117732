"""What a build is asked for, and the plan that makes of it; nothing heavy is loaded and no voxel read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ensemble.core import load_manifest, select_targets
from ensemble.plan import lock
from ensemble.plan import plan as planning
from ensemble.plan.budget import Budget
from ensemble.plan.em_likeness import UnlikeEM, refuse_unlike, unlike_em
from ensemble.plan.hours import Hours, Pacing
from ensemble.plan.job import Job, Precision
from ensemble.plan.network_use import NetworkUse
from ensemble.plan.plan import Plan
from ensemble.plan.plan_description import PlanDescription
from ensemble.plan.plan_warnings import check_datasets, plan_warnings
from ensemble.plan.recipe_reader import find_recipe, load_recipe
from ensemble.plan.workers import Workers
from ensemble.storage import DEFAULT_EM_CACHE_BYTES, EM, is_url, plain
from ensemble.support import (
    EnsembleError,
    cores,
    default_memory_bytes,
    digest,
    read_sealed,
    without_credentials,
    write_sealed,
)
from registry import ModelVersion, Registry

_LONGEST_NAME = 100
"""Of a build's folder, where more crops or classes are asked for than a name can list."""


@dataclass(frozen=True)
class Request:
    """What a build is asked for; ``cache`` is where stored predictions lie, None: beside ``out``.

    ``overwrite``: even the submission of another recipe or selection may be replaced. ``em_cache_bytes``: how much
    of the EM that comes from a URL is kept on this machine at most, for all builds. ``workers`` are those of the
    cluster that does the work; None: this process's own devices.
    """

    recipe: str | Path
    out: Path
    manifest: Path | None = None
    data_root: str = "data"
    crops: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    device: str = "auto"
    precision: Precision = "auto"
    budget: Budget = field(default_factory=lambda: Budget(default_memory_bytes(), cores()))
    absent_is_zero: bool = False
    update_lock: bool = False
    cache: Path | None = None
    overwrite: bool = False
    em_cache_bytes: int = DEFAULT_EM_CACHE_BYTES
    workers: Workers | None = None

    def as_plain(self) -> dict[str, Any]:
        """What ``again`` reads back: everything but threads and memory."""
        return {
            "recipe": str(Path(find_recipe(self.recipe)).resolve()),
            "manifest": str(self.manifest.resolve()) if self.manifest else None,
            "data_root": self.data_root if is_url(self.data_root) else str(Path(plain(self.data_root)).resolve()),
            "crops": None if self.crops is None else list(self.crops),
            "classes": None if self.classes is None else list(self.classes),
            "device": self.device,
            "precision": self.precision,
            "absent_is_zero": self.absent_is_zero,
            "cache": str(self.cache.resolve()) if self.cache else None,
            "em_cache_bytes": self.em_cache_bytes,
        }

    @classmethod
    def again(cls, out: Path) -> "Request":
        """The request whose build lies in ``out``. Raises EnsembleError where there is none."""
        kept = read_sealed(out / "work" / "request.json")
        try:
            return TypeAdapter(cls).validate_python({**kept, "out": out} if isinstance(kept, dict) else None)
        except ValidationError as error:
            raise EnsembleError(
                f"{out}: holds no build to go by; run ensemble build RECIPE --out {out} first"
            ) from error

    def keep(self) -> None:
        """Note what was asked for, beside what the build goes on from."""
        write_sealed(self.work / "request.json", self.as_plain())

    @property
    def lock(self) -> Path:
        return self.out / "lock.yaml"

    @property
    def zip(self) -> Path:
        return self.out / "submission.zip"

    @property
    def pages(self) -> tuple[Path, ...]:
        """What a report leaves beside the zip."""
        return tuple(self.out / name for name in ("report.html", "report.json", "scores.json"))

    @property
    def has_report(self) -> bool:
        """Whether the page and its facts are there."""
        return all(page.exists() for page in self.pages[:2])

    @property
    def work(self) -> Path:
        """What a build goes on from; may be removed at any time."""
        return self.out / "work"

    @property
    def predictions(self) -> Path:
        """What networks predicted, by content; the builds of a folder share it."""
        return self.cache or predictions_beside(self.out)


def registry_in(folder: Path) -> Registry:
    """The registry that lies in a folder, such as the demo's in build/demo."""
    return Registry(f"sqlite:///{folder.resolve() / 'mlruns' / 'mlflow.db'}")


def registry_of(out: Path) -> Registry:
    """Where the models of a build are: in its own folder, where a registry lies in it; else in the one in use here."""
    return registry_in(out) if (out / "mlruns" / "mlflow.db").is_file() else Registry()


def name_of_build(recipe: str, crops: Sequence[str] | None, classes: Sequence[str] | None) -> str:
    """The name of a build's folder: "mine", or of a part of the manifest "mine--crop902-crop903--mito"."""
    groups = sorted({f"crop{crop.removeprefix('crop')}" for crop in crops or ()})
    parts = ["-".join(part) for part in (groups, sorted(set(classes or ()))) if part]
    name = "--".join([recipe, *parts])
    return name if len(name) <= _LONGEST_NAME else f"{recipe}--part-{digest(parts)[:8]}"


def predictions_beside(out: Path) -> Path:
    """Where a build's stored predictions lie unless that is said: build/predictions for build/mine."""
    return (out if out.name not in ("", "..") else out.resolve()).parent / "predictions"


def predictions_of(out: Path) -> Path:
    """Where the stored predictions lie that the build in ``out`` used."""
    kept = read_sealed(out / "work" / "request.json")
    cache = kept.get("cache") if isinstance(kept, dict) else None
    return Path(cache) if cache and isinstance(cache, str) else predictions_beside(out)


@dataclass(frozen=True)
class Prepared:
    """A plan, what it was made from, what a person should know of it, a line each, what was timed, and how the
    lock says that networks run."""

    plan: Plan
    models: Mapping[str, ModelVersion]
    em: EM
    moved: tuple[str, ...]
    threads: int
    unlike: tuple[UnlikeEM, ...]
    warnings: tuple[str, ...]
    pacing: Pacing
    locked_uses: Mapping[str, NetworkUse]

    def check(self) -> None:
        """Raise RecipeError where a model would run on EM unlike that of its training, unasked."""
        refuse_unlike(self.unlike)

    def hours(self, jobs: Sequence[Job]) -> Hours:
        """How long it takes where ``jobs`` are left to compute."""
        return self.pacing.hours(self.plan, jobs)

    def described(
        self, budget: Budget, hours: Hours | None = None, uses: Mapping[str, NetworkUse] = MappingProxyType({})
    ) -> PlanDescription:
        return PlanDescription.of(self.plan, budget, self.warnings, hours, uses)


def prepare(request: Request, store: Registry) -> Prepared:
    """The plan of a build: reads the recipe, cards and metadata, touches no voxel."""
    recipe = load_recipe(request.recipe)
    manifest = load_manifest(request.manifest)
    check_datasets(recipe, manifest)
    targets = select_targets(manifest, request.crops, request.classes)
    left_out = sum(len(target.classes) for target in manifest) - sum(len(target.classes) for target in targets)
    used = set().union(*(planning.sources_of(recipe, target) for target in targets))
    in_order = [name for name in recipe.sources if name in used]
    resolved = lock.resolve_models(recipe, in_order, store, request.lock, update=request.update_lock)
    em = EM(request.data_root, absent_is_zero=request.absent_is_zero, cache_bytes=request.em_cache_bytes)
    plan = planning.make_plan(recipe, targets, resolved.models, em)
    plan = replace(plan, left_out=left_out)
    unlike = unlike_em(plan, em)
    found = (*plan_warnings(plan, manifest, em), *(entry.warning for entry in unlike))
    threads = resolved.threads or (request.workers.threads if request.workers else cores())
    pacing = Pacing(
        store.paces,
        request.workers.card if request.workers else request.device,
        request.precision,
        threads,
        request.budget.workers,
        request.budget.devices,
    )
    warnings = tuple(map(without_credentials, found))
    return Prepared(plan, resolved.models, em, resolved.moved, threads, unlike, warnings, pacing, resolved.uses)
