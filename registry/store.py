"""Where registered models are kept: MLflow's model registry, embedded in a sqlite file or behind a server.

MLflow and torch take seconds to import, so they are imported where they are first needed.
"""

import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from ensemble.support.errors import CardError, CheckpointError, RegistryError, suggestion
from registry import card as cards
from registry.card import Card
from registry.connection import Connection, pages, persistently, unless_there
from registry.files import CARD, GOLDEN, WEIGHTS

if TYPE_CHECKING:
    from registry.networks import Golden

MODELS, BUILDS, TUNINGS = "ensemble models", "ensemble builds", "ensemble tunings"
FOLDER = "model"
REGISTER = "ensemble register CHECKPOINT --card CARD.yaml"
_WEIGHTS_BYTES, _PATCH_BYTES = "weights_bytes", "patch_bytes"
_TAGS = ("sha256", "architecture", _WEIGHTS_BYTES, _PATCH_BYTES)
_RETIRED, _MOVED = "retired", "moved."
TAG_CHARACTERS = 5000
READY_WITHIN_S = 60
PARAMETERS_PER_CALL = 100
METRICS_PER_CALL = 1000


@dataclass(frozen=True)
class ModelVersion:
    """One registered model; ``uri`` is ``models:/NAME/VERSION``, ``source`` is where its files are kept.

    ``weights_bytes`` and ``patch_bytes`` are what its network takes of memory (see ``networks.footprint``).
    ``retired`` is why it is no longer to be used, None while it is.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    card: Card
    sha256: str
    uri: str
    source: str
    run_id: str
    created: datetime
    weights_bytes: int
    patch_bytes: int
    retired: str | None = None


class Store:
    """The registry at ``tracking_uri``, else MLFLOW_TRACKING_URI, else ``mlruns/`` in the working directory.

    Nothing is read or created before a method asks for it, and only writing creates. Every method raises
    RegistryError if the store does not answer.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        embedded = f"sqlite:///{Path.cwd() / 'mlruns' / 'mlflow.db'}"
        self.tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or embedded
        self._mlflow = Connection(self.tracking_uri)
        self.broken: list[str] = []

    def register(
        self, checkpoint: Path, card: Card, *, alias: str | None = None, card_path: Path | None = None
    ) -> ModelVersion:
        """The checkpoint's weights as a version of ``card.name``, in use under ``alias`` if one is given.

        Equal weights with an equal card are the version that is there already. ``card_path`` is the file
        the card was read from, for messages. Raises CheckpointError or CardError for what does not fit;
        then, as after any failure, no version is left behind.
        """
        check_alias(alias)
        with tempfile.TemporaryDirectory(prefix="ensemble-register-") as folder:
            from registry import package

            card = package.pack(Path(folder), Path(checkpoint), card, card_path)
            with self._mlflow.answering(), self._mlflow.locked():
                found = self._same(card)
                if found is None:
                    number = self._create(Path(folder), card, alias)
                else:
                    number = found.version
                    if alias is not None:
                        self._move(card.name, alias, number, "registered")
        return self.resolve(f"models:/{card.name}/{number}")

    def versions(self, name: str | None = None) -> list[ModelVersion]:
        """What is registered, by name and version; models that other tools registered are left out.

        Versions whose files are gone or damaged are left out too; ``broken`` then tells of each.

        Raises RegistryError for a ``name`` of which there is no version.
        """
        if not self._mlflow.exists():
            found = []
        else:
            with self._mlflow.answering():
                found = self._versions(name)
        if name is not None and not found:
            raise RegistryError(self._unknown(name))
        return found

    def resolve(self, reference: str) -> ModelVersion:
        """The version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` means now.

        Raises RegistryError, with what is registered, for a name, alias or version that is not there.
        """
        parts = re.fullmatch(r"models:/([\w.-]+)(?:@([\w-]+)|/([0-9]{1,9}))", reference)
        if parts is None:
            forms = "models:/NAME@ALIAS or models:/NAME/VERSION"
            raise RegistryError(f"{reference!r} names no model; write {forms}")
        name, alias, number = parts.groups()
        if not self._mlflow.exists():
            raise RegistryError(f"{reference}: {self._unknown(name)}")
        with self._mlflow.answering():
            model = self._model(name)
            if model is None:
                raise RegistryError(f"{reference}: {self._unknown(name)}")
            if alias is not None and alias not in model.aliases:
                hint = suggestion(alias, model.aliases) or "; it has none, set one with --alias"
                raise RegistryError(f"{reference}: model {name!r} has no alias {alias!r}{hint}")
            number = int(number if alias is None else model.aliases[alias])
            known = {int(entity.version): entity for entity in self._entities(name)}
            if number not in known:
                have = ", ".join(map(str, sorted(known))) or "none"
                raise RegistryError(f"{reference}: model {name!r} has no version {number}; known: {have}")
            if not _is_ours(known[number]):
                raise RegistryError(f"{reference}: another tool registered it, without a card; {REGISTER}")
            found = self._version(known[number], model.aliases)
        if found.retired is not None:
            raise RegistryError(
                f"{reference}: version {number} was retired: {found.retired}; use another, or say --update-lock"
                " where a lock keeps it"
            )
        return found

    def weights(self, version: ModelVersion) -> Path:
        """The version's model.safetensors on this machine, its sha256 verified.

        Raises CheckpointError if the file is not, bit for bit, what was registered.
        """
        from registry.weights import verify

        with self._mlflow.answering():
            path = self._file(version.source, version.run_id, WEIGHTS)
            try:
                verify(path, version.sha256)
            except CheckpointError:
                if not path.is_relative_to(_cache()):
                    raise
                path.unlink(missing_ok=True)
                path = self._file(version.source, version.run_id, WEIGHTS)
                verify(path, version.sha256)
        return path

    def file(self, version: ModelVersion, name: str) -> Path:
        """One of the version's files on this machine, such as its card or its golden answer."""
        with self._mlflow.answering():
            return self._file(version.source, version.run_id, name)

    def golden(self, version: ModelVersion) -> "Golden":
        """The patch and the answer that were stored when the version was registered."""
        from registry import package

        return package.read_golden(self.file(version, GOLDEN))

    def set_alias(self, name: str, alias: str, version: int, reason: str) -> None:
        """Let ``models:/NAME@ALIAS`` mean ``version`` from now on, and keep the reason (see ``moves``)."""
        check_alias(alias)
        reason = _told(reason)
        self.resolve(f"models:/{name}/{version}")
        with self._mlflow.answering(), self._mlflow.locked():
            self._move(name, alias, version, reason)

    def moves(self, name: str) -> list[str]:
        """When and why aliases of a model were moved, oldest first."""
        with self._mlflow.answering():
            model = self._model(name)
            tags = {} if model is None else model.tags
        return [tags[key] for key in sorted(tags) if key.startswith(_MOVED)]

    def retire(self, version: ModelVersion, reason: str) -> None:
        """Let nobody resolve the version any more; it stays listed with the reason. Refused while an alias means it."""
        reason = _told(reason)
        if version.aliases:
            raise RegistryError(
                f"{version.uri}: still in use as @{', @'.join(version.aliases)}; move the alias first:"
                f" ensemble models alias {version.name} {version.aliases[0]} VERSION --reason WHY"
            )
        with self._mlflow.answering(), self._mlflow.locked():
            tag = reason[:TAG_CHARACTERS]
            self._mlflow.client.set_model_version_tag(version.name, str(version.version), _RETIRED, tag)

    def log_run(
        self,
        experiment: str,
        name: str,
        *,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        tags: dict[str, str],
        artifacts: Sequence[Path] = (),
        parent: str | None = None,
    ) -> str:
        """The id of a finished MLflow run, below the run ``parent`` if one is given; ``artifacts``: files, folders."""
        tags = tags if parent is None else {**tags, "mlflow.parentRunId": parent}
        for path in artifacts:
            if not Path(path).exists():
                raise RegistryError(f"{path}: not there, so it cannot be recorded")
        with self._mlflow.answering(), self._mlflow.run(experiment, name, tags) as run:
            from mlflow.entities import Metric, Param

            client, run_id, now = self._mlflow.client, run.info.run_id, int(time.time() * 1000)
            client.log_batch(run_id, metrics=[Metric(key, value, now, 0) for key, value in metrics.items()])
            listed = [Param(key, str(value)) for key, value in params.items()]
            for start in range(0, len(listed), PARAMETERS_PER_CALL):
                client.log_batch(run_id, params=listed[start : start + PARAMETERS_PER_CALL])
            for path in map(Path, artifacts):
                if path.is_dir():
                    client.log_artifacts(run_id, str(path), path.name)
                else:
                    client.log_artifact(run_id, str(path))
        return run_id

    def add_to_run(self, run_id: str, metrics: Mapping[str, float], artifacts: Sequence[Path] = ()) -> None:
        """Add metrics and files to a run there is. Raises RegistryError when there is no such run."""
        if not self._mlflow.exists():
            raise RegistryError(f"{self.tracking_uri}: there is no registry, and so no run {run_id}")
        with self._mlflow.answering():
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            listed = [Metric(key, value, now, 0) for key, value in metrics.items()]
            for start in range(0, len(listed), METRICS_PER_CALL):
                self._mlflow.client.log_batch(run_id, metrics=listed[start : start + METRICS_PER_CALL])
            for path in artifacts:
                self._mlflow.client.log_artifact(run_id, str(path))

    # -- reading

    def _versions(self, name: str | None) -> list[ModelVersion]:
        aliases = {model.name: model.aliases for model in pages(self._mlflow.client.search_registered_models)}
        found, self.broken = [], []
        for entity in (e for e in self._entities(name) if _is_ours(e)):
            try:
                found.append(self._version(entity, aliases.get(entity.name, {})))
            except (RegistryError, CardError) as error:
                self.broken.append(f"models:/{entity.name}/{entity.version}: {error}")
        return sorted(found, key=lambda version: (version.name, version.version))

    def _entities(self, name: str | None) -> list[Any]:
        if name is not None and not re.fullmatch(r"[\w.-]+", name):
            return []
        query = None if name is None else f"name = '{name}'"
        return list(pages(self._mlflow.client.search_model_versions, query))

    def _model(self, name: str) -> Any | None:
        return next(iter(pages(self._mlflow.client.search_registered_models, f"name = '{name}'")), None)

    def _version(self, entity: Any, aliases: dict[str, Any]) -> ModelVersion:
        uri, digest = f"models:/{entity.name}/{entity.version}", entity.tags["sha256"]
        card = cards.load(self._file(entity.source, entity.run_id, CARD))
        if card.sha256 != digest:
            raise RegistryError(f"{uri}: its card is of other weights than its tag says; {REGISTER}")
        return ModelVersion(
            name=entity.name,
            version=int(entity.version),
            aliases=tuple(sorted(a for a, number in aliases.items() if int(number) == int(entity.version))),
            card=card,
            sha256=digest,
            uri=uri,
            source=entity.source,
            run_id=entity.run_id,
            created=datetime.fromtimestamp(entity.creation_timestamp / 1000, UTC),
            weights_bytes=int(entity.tags[_WEIGHTS_BYTES]),
            patch_bytes=int(entity.tags[_PATCH_BYTES]),
            retired=entity.tags.get(_RETIRED),
        )

    def _file(self, source: str, run_id: str, name: str) -> Path:
        """A version's file where it lies, or its copy fetched once from a server."""
        if source.startswith(("file:", "/")):
            path = _path(source) / name
            if not path.is_file():
                raise RegistryError(
                    f"{path}: the registry lists this file, but it is not there; restore it, or register the"
                    " model again (a server's files are only reachable if it runs with --serve-artifacts)"
                )
            return path
        path = _cache() / run_id / name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
                os.replace(self._mlflow.client.download_artifacts(run_id, f"{FOLDER}/{name}", folder), path)
        return path

    def _unknown(self, name: str) -> str:
        with self._mlflow.answering():
            exists = self._mlflow.exists()
            names = {entity.name for entity in self._entities(None) if _is_ours(entity)} if exists else set()
        if not names:
            return f"nothing is registered yet in {self._mlflow.address}; use {REGISTER}"
        return f"no model {name!r} in {self._mlflow.address}{suggestion(name, names)}"

    # -- writing

    def _move(self, name: str, alias: str, version: int, reason: str) -> None:
        client, now = self._mlflow.client, datetime.now(UTC)
        client.set_registered_model_alias(name, alias, str(version))
        said = f"{now:%Y-%m-%d %H:%M} @{alias} -> version {version}: {reason}"
        client.set_registered_model_tag(name, f"{_MOVED}{now:%Y%m%dT%H%M%S%f}", said[:TAG_CHARACTERS])

    def _same(self, card: Card) -> ModelVersion | None:
        """The latest version with these weights and this card whose files are whole."""
        same = [e for e in self._entities(card.name) if e.tags.get("sha256") == card.sha256 and _is_ours(e)]
        for entity in sorted(same, key=lambda entity: int(entity.version), reverse=True):
            with suppress(RegistryError, CardError, CheckpointError):
                version = self._version(entity, {})
                if version.card == card and version.retired is None and self.weights(version):
                    return version
        return None

    def _create(self, folder: Path, card: Card, alias: str | None) -> int:
        from registry import networks

        tags = {
            "classes": ",".join(name for name in card.classes if name is not None),
            "voxel_size_nm": "x".join(f"{v:g}" for v in card.voxel_size_nm),
            "architecture": card.architecture,
            "sha256": card.sha256 or "",
            **({"fine_tuned_from": card.fine_tuned_from} if card.fine_tuned_from else {}),
            **({"merged_from": " ".join(card.merged_from)[:TAG_CHARACTERS]} if card.merged_from else {}),
            **dict(zip((_WEIGHTS_BYTES, _PATCH_BYTES), map(str, networks.footprint(card)), strict=True)),
        }
        client = self._mlflow.client
        with self._mlflow.run(MODELS, card.name, tags) as run:
            client.log_artifacts(run.info.run_id, str(folder), FOLDER)
            if card.validation:
                from mlflow.entities import Metric

                now = int(time.time() * 1000)
                scores = [Metric(f"validation_{name}", score, now, 0) for name, score in card.validation.items()]
                client.log_batch(run.info.run_id, metrics=scores)
        try:
            unless_there(lambda: client.create_registered_model(card.name))
            number = self._create_version(card.name, run, tags)
            if alias is not None:
                self._move(card.name, alias, number, "registered")
        except BaseException:
            for entity in self._versions_of(run):  # also one that was made although the answer got lost
                client.delete_model_version(entity.name, entity.version)
            client.delete_run(run.info.run_id)
            raise
        return number

    def _create_version(self, name: str, run: Any, tags: dict[str, str]) -> int:
        source = f"{run.info.artifact_uri}/{FOLDER}"

        def create() -> int:
            made = self._versions_of(run)
            if made:
                return int(made[0].version)
            entity = self._mlflow.client.create_model_version(
                name, source, run.info.run_id, tags=tags, await_creation_for=READY_WITHIN_S
            )
            return int(entity.version)

        return persistently(create)

    def _versions_of(self, run: Any) -> list[Any]:
        return list(pages(self._mlflow.client.search_model_versions, f"run_id = '{run.info.run_id}'"))


def _told(reason: str) -> str:
    """The reason on one line. Raises RegistryError for none."""
    reason = " ".join(reason.split())
    if not reason:
        raise RegistryError("--reason: say why, for those who wonder later")
    return reason


def check_alias(alias: str | None) -> None:
    """Raise RegistryError for what MLflow would not take as an alias; None is none."""
    if alias is None:
        return
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", alias):
        raise RegistryError(f"{alias!r} is no alias; use letters, digits, - and _, such as 'champion'")
    if re.fullmatch(r"latest|v[0-9]+", alias, re.IGNORECASE):
        raise RegistryError(f"the alias {alias!r} is reserved by MLflow; use another, such as 'champion'")


def _is_ours(entity: Any) -> bool:
    return bool(entity.run_id and all(entity.tags.get(tag) for tag in _TAGS))


def _path(uri: str) -> Path:
    parts = urlparse(uri)
    return Path(url2pathname(parts.path) if parts.scheme == "file" else uri)


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ensemble" / "models"
