"""Which model versions a build uses: resolved once, written beside the submission, obeyed when it resumes."""

import hashlib
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.plan.network_use import NetworkUse
from ensemble.plan.plan import Plan
from ensemble.plan.recipe import ModelSource, Recipe, Source
from ensemble.support import (
    COMPUTING_LIBRARIES,
    RegistryError,
    dump_yaml,
    library_versions,
    load_yaml,
    without_credentials,
    write_text,
)
from registry import ModelVersion, Registry

_MOST_THREADS = 1024


@dataclass(frozen=True)
class ResolvedModels:
    """The models of a recipe's sources by name, and what to tell of aliases that have moved since.

    ``threads``: how many the lock says a network's operations use, which decides their last bits; None: no lock.
    ``uses``: source -> how the lock says that its network runs.
    """

    models: dict[str, ModelVersion]
    moved: tuple[str, ...]
    threads: int | None
    uses: dict[str, NetworkUse]


def resolve_models(
    recipe: Recipe, used: Iterable[str], store: Registry, lock_path: Path, *, update: bool
) -> ResolvedModels:
    """The version of every model source in ``used``: the locked one where the lock names the same alias.

    Raises RegistryError, with the recipe's line, for a model, alias or version that is not registered.
    """
    known_lock = {} if update else _read(lock_path)
    locked = known_lock.get("models", {})
    models, moved, uses = {}, [], {}
    for name in used:
        source = recipe.sources[name]
        if not isinstance(source, ModelSource):
            continue
        try:
            model = store.resolve(source.uri)
            known = locked.get(name, {})
            if known.get("uri") == source.uri and not _is_locked(model, known):
                now = model.version
                model = store.resolve(f"models:/{known.get('name')}/{known.get('version')}")
                if not _is_locked(model, known):
                    raise RegistryError(
                        f"{model.uri}: has other weights or another card than {lock_path} says; register it as a new"
                        " version, or say --update-lock"
                    )
                moved.append(
                    f"{source.uri} now means version {now}; this build keeps version {known['version']} "
                    "of its lock (--update-lock takes the new one)"
                )
        except RegistryError as error:
            raise RegistryError(f"{recipe.source_places[name]}: {error}") from error
        models[name] = model
        use = NetworkUse.from_plain(known.get("runs"))
        if use is not None and known.get("sha256") == model.sha256:
            uses[name] = use
    return ResolvedModels(models, tuple(moved), known_lock.get("threads"), uses)


def _is_locked(model: ModelVersion, known: Mapping[str, Any]) -> bool:
    """Whether it is, in weights and card, what the lock says of it."""
    return (model.sha256, model.card_sha256) == (known.get("sha256"), known.get("card_sha256"))


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    data, _ = load_yaml(path, RegistryError)
    models = data.get("models") if isinstance(data, dict) else None
    right = isinstance(models, dict) and all(
        isinstance(model, dict) and {"uri", "name", "version", "sha256"} <= model.keys() for model in models.values()
    )
    if not right or not (type(data.get("threads")) is int and 0 < data["threads"] <= _MOST_THREADS):
        raise RegistryError(f"{path}: not a lock of this tool; remove it, or say --update-lock")
    return dict(data)


def lock_contents(
    plan: Plan,
    models: Mapping[str, ModelVersion],
    manifest: Path | None,
    data_root: str,
    threads: int,
    uses: Mapping[str, NetworkUse],
    made_from: Mapping[str, Any],
) -> dict[str, Any]:
    """What the lock says: everything that decides the submission's bytes, and where it came from.

    ``uses``: source -> how its network runs. ``made_from``: which recipe and selection it is, whatever is edited in
    them.
    """
    return {
        "made_from": dict(made_from),
        "recipe": {"name": plan.recipe.name, "sha256": _digest(plan.recipe.path)},
        "manifest": {"path": str(manifest), "sha256": _digest(manifest)} if manifest else "official",
        "data": without_credentials(str(data_root)),
        "threads": threads,
        "models": {
            name: {
                "uri": _uri(plan.recipe.sources[name]),
                "name": model.name,
                "version": model.version,
                "sha256": model.sha256,
                "card_sha256": model.card_sha256,
                "em": em_use(plan, name),
                "runs": uses[name].as_plain() if name in uses else None,
            }
            for name, model in models.items()
        },
        "packages": library_versions((*COMPUTING_LIBRARIES, "zarr")),
        "python": platform.python_version(),
        "git": _git_revision(),
    }


def _uri(source: Source) -> str | None:
    return source.uri if isinstance(source, ModelSource) else None


def em_use(plan: Plan, source: str) -> dict[str, str]:
    """By dataset, the EM voxel size a source reads and whether it is resampled."""
    used = {}
    for job in plan.jobs:
        if job.source == source:
            size = "x".join(f"{v:g}" for v in job.level_grid.voxel_size_nm)
            used[job.dataset] = f"{size} nm, {job.em_in_words}"
    return used


def write_lock(path: Path, data: Mapping[str, Any]) -> None:
    """Write the lock at once or not at all."""
    write_text(path, dump_yaml(data))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _git_revision() -> str:
    try:
        here = Path(__file__).parent
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
