"""The model registry: MLflow's, embedded in a sqlite file or behind a server.

MLflow and torch take seconds to import, so they are imported where they are first needed.
"""

import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble.support import CardError, CheckpointError, RegistryError, one_line, suggestion
from registry import version_folder
from registry.card import Card, load_card
from registry.checksums import check_sha256, sha256
from registry.connection import Connection, pages, persistently, unless_there
from registry.embedded import address_of
from registry.listing import Entry, read_listing
from registry.paces import Paces
from registry.references import check_alias, is_model_name, parse_model_uri
from registry.runs import MODELS, MetricPoint, Runs
from registry.version_folder import CARD, FOLDER, GOLDEN, WEIGHTS

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion
    from numpy.typing import NDArray

    from registry.golden import Golden
    from registry.packing import Packed

REGISTER = "ensemble register CHECKPOINT --card CARD.yaml"
TAG_CHARACTERS = 5000
NOTE_CHARACTERS = 5000
READY_WITHIN_S = 60
_WEIGHTS_BYTES, _PATCH_BYTES = "weights_bytes", "patch_bytes"
_REQUIRED_TAGS = ("sha256", "architecture", _WEIGHTS_BYTES, _PATCH_BYTES)
_CARD_SHA256 = "card_sha256"
_CHANGED_CARD = f"put that back, or register the changed one as a new version: {REGISTER}"
_RETIRED, _MOVED = "retired", "moved."


@dataclass(frozen=True)
class ModelVersion:
    """One registered model; ``uri`` is ``models:/NAME/VERSION``, ``source`` is where its files are kept.

    ``sha256`` is that of its weights, ``card_sha256`` that of its card's file.
    ``weights_bytes`` and ``patch_bytes`` are what its network takes of memory (see ``networks.footprint``).
    ``retired`` is why it is no longer to be used, None while it is.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    card: Card
    sha256: str
    card_sha256: str
    uri: str
    source: str
    run_id: str
    created: datetime
    weights_bytes: int
    patch_bytes: int
    retired: str | None = None


class Registry:
    """The registry at ``tracking_uri``, else MLFLOW_TRACKING_URI, else ``mlruns/`` in the working directory.

    Nothing is read or created before a method asks for it, and only writing creates. Every method raises
    RegistryError if the store does not answer. ``runs`` are the MLflow runs kept beside the models,
    ``paces`` what machines took for them.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        here = address_of(Path.cwd() / "mlruns" / "mlflow.db")
        self.tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or here
        self._mlflow = Connection(self.tracking_uri)
        self.runs = Runs(self._mlflow)
        self.paces = Paces(version_folder.beside(self._mlflow, "paces.json"))
        self.broken: list[str] = []

    @property
    def address(self) -> str:
        """Where it is, as it is shown: without user and password."""
        return self._mlflow.address

    def register(
        self,
        checkpoint: Path,
        card: Card,
        *,
        alias: str | None = None,
        card_path: Path | None = None,
        weights_key: str | None = None,
        shown: "NDArray[Any] | None" = None,
    ) -> ModelVersion:
        """The checkpoint's weights as a version of ``card.name``, in use under ``alias`` if one is given.

        Equal weights with an equal card are the version that is there already. ``card_path`` is the file
        the card was read from, for messages; ``weights_key`` is that of the weights in a checkpoint that holds several;
        ``shown`` is a patch of EM (z, y, x) that the version's page shows with the network's answer.
        Raises CheckpointError or CardError for what does not fit;
        then, as after any failure, no version is left behind.
        """
        check_alias(alias)
        with tempfile.TemporaryDirectory(prefix="ensemble-register-") as folder:
            from registry.packing import pack

            packed = pack(Path(folder), Path(checkpoint), card, card_path, weights_key, shown)
            with self._mlflow.writing(), self._mlflow.locked():
                same = self._same(packed.card)
                if same is None:
                    number = self._create(Path(folder), packed, alias)
                else:
                    number = same.version
                    if alias is not None:
                        self._move(card.name, alias, number, "registered")
        return self.resolve(f"models:/{card.name}/{number}")

    def versions(self, name: str | None = None) -> list[ModelVersion]:
        """What is registered, by name and version; models that other tools registered are left out.

        Versions whose files are gone or damaged are left out too; ``broken`` then tells of each.

        Raises RegistryError for a ``name`` of which there is no version.
        """
        versions, self.broken = [], []
        if self._mlflow.exists() and (name is None or is_model_name(name)):
            with self._mlflow.answering():
                versions = self._versions(name)
        if name is not None and not versions:
            raise RegistryError(self.broken[0] if self.broken else self._unknown(name))
        return versions

    def resolve(self, uri: str) -> ModelVersion:
        """The version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` means now.

        Raises RegistryError, with what is registered, for a name, alias or version that is not there.
        """
        reference = parse_model_uri(uri)
        name, number = reference.name, reference.version
        if not self._mlflow.exists():
            raise RegistryError(f"{uri}: {self._unknown(name)}")
        with self._mlflow.answering():
            listing = read_listing(self._mlflow, name)
            if name not in listing.models:
                raise RegistryError(f"{uri}: {self._unknown(name)}")
            aliases, entries = listing.aliases(name), listing.of(name)
            if isinstance(number, str):
                if number not in aliases:
                    hint = suggestion(number, aliases) or "; it has none, set one with --alias"
                    raise RegistryError(f"{uri}: model {name!r} has no alias {number!r}{hint}")
                number = aliases[number]
            if number not in entries:
                known = ", ".join(map(str, sorted(entries))) or "none"
                raise RegistryError(f"{uri}: model {name!r} has no version {number}; known: {known}")
            if not _is_ours(entries[number]):
                raise RegistryError(f"{uri}: another tool registered it, without a card; {REGISTER}")
            version = self._version(entries[number], aliases)
        if version.retired is not None:
            raise RegistryError(
                f"{uri}: version {number} was retired: {version.retired}; use another, or say --update-lock"
                " where a lock keeps it"
            )
        return version

    def weights(self, version: ModelVersion) -> Path:
        """The version's model.safetensors on this machine, its sha256 verified.

        Raises CheckpointError if the file is not, bit for bit, what was registered.
        """
        with self._mlflow.answering():
            return version_folder.whole_file(
                self._mlflow, version.source, version.run_id, WEIGHTS, lambda path: check_sha256(path, version.sha256)
            )

    def file(self, version: ModelVersion, name: str) -> Path:
        """One of the version's files on this machine, such as its card or its golden answer."""
        with self._mlflow.answering():
            return self._file(version, name)

    def golden(self, version: ModelVersion) -> "Golden":
        """The patch and the answer that were stored when the version was registered."""
        from registry import golden

        return golden.read(self.file(version, GOLDEN))

    def set_alias(self, name: str, alias: str, version: int, reason: str) -> None:
        """Let ``models:/NAME@ALIAS`` mean ``version`` from now on, and keep the reason (see ``moves``)."""
        check_alias(alias)
        reason = _on_one_line(reason)
        self.resolve(f"models:/{name}/{version}")
        with self._mlflow.writing(), self._mlflow.locked():
            self._move(name, alias, version, reason)

    def moves(self, name: str) -> list[str]:
        """When and why aliases of a model were moved, oldest first."""
        with self._mlflow.answering():
            model = read_listing(self._mlflow, name).models.get(name)
            tags = {} if model is None else model.tags
        return [tags[key] for key in sorted(tags) if key.startswith(_MOVED)]

    def retire(self, version: ModelVersion, reason: str) -> None:
        """Let nobody resolve the version any more; it stays listed with the reason. Refused while an alias means it."""
        reason = _on_one_line(reason)
        if version.aliases:
            raise RegistryError(
                f"{version.uri}: still in use as @{', @'.join(version.aliases)}; move the alias first:"
                f" ensemble models alias {version.name} {version.aliases[0]} VERSION --reason WHY"
            )
        with self._mlflow.writing(), self._mlflow.locked():
            tag = reason[:TAG_CHARACTERS]
            self._mlflow.client.set_model_version_tag(version.name, str(version.version), _RETIRED, tag)

    # -- reading

    def _versions(self, name: str | None) -> list[ModelVersion]:
        listing = read_listing(self._mlflow, name)
        versions = []
        for entry in listing.entries if name is None else listing.of(name).values():
            if not _is_ours(entry):
                continue
            try:
                versions.append(self._version(entry, listing.aliases(entry.name)))
            except (RegistryError, CardError) as error:
                self.broken.append(f"models:/{entry.name}/{entry.version}: {error}")
        return sorted(versions, key=lambda version: (version.name, version.version))

    def _version(self, entry: Entry, aliases: Mapping[str, int]) -> ModelVersion:
        uri, digest = f"models:/{entry.name}/{entry.version}", entry.tags["sha256"]
        card_digest = entry.tags.get(_CARD_SHA256, "")

        def check(path: Path) -> None:
            if sha256(path) != card_digest:
                raise RegistryError(f"{path}: not the card that {uri} was registered with; {_CHANGED_CARD}")

        card = load_card(version_folder.whole_file(self._mlflow, entry.source, entry.run_id, CARD, check))
        if card.sha256 != digest:
            raise RegistryError(f"{uri}: its card is of other weights than its tag says; {REGISTER}")
        return ModelVersion(
            name=entry.name,
            version=entry.version,
            aliases=tuple(sorted(alias for alias, number in aliases.items() if number == entry.version)),
            card=card,
            sha256=digest,
            card_sha256=card_digest,
            uri=uri,
            source=entry.source,
            run_id=entry.run_id,
            created=datetime.fromtimestamp(entry.milliseconds / 1000, UTC),
            weights_bytes=int(entry.tags[_WEIGHTS_BYTES]),
            patch_bytes=int(entry.tags[_PATCH_BYTES]),
            retired=entry.tags.get(_RETIRED),
        )

    def _file(self, version: ModelVersion, name: str) -> Path:
        return version_folder.local_file(self._mlflow, version.source, version.run_id, name)

    def _unknown(self, name: str) -> str:
        with self._mlflow.answering():
            entries = read_listing(self._mlflow).entries if self._mlflow.exists() else ()
            names = {entry.name for entry in entries if _is_ours(entry)}
        if not names:
            return f"nothing is registered yet in {self._mlflow.address}; use {REGISTER}"
        return f"no model {name!r} in {self._mlflow.address}{suggestion(name, names)}"

    # -- writing

    def _move(self, name: str, alias: str, version: int, reason: str) -> None:
        client, now = self._mlflow.client, datetime.now(UTC)
        client.set_registered_model_alias(name, alias, str(version))
        entry = f"{now:%Y-%m-%d %H:%M} @{alias} -> version {version}: {reason}"
        client.set_registered_model_tag(name, f"{_MOVED}{now:%Y%m%dT%H%M%S%f}", entry[:TAG_CHARACTERS])

    def _same(self, card: Card) -> ModelVersion | None:
        """The latest version with these weights and this card whose files are whole."""
        entries = read_listing(self._mlflow, card.name).of(card.name).values()
        same = [entry for entry in entries if _is_ours(entry) and entry.tags["sha256"] == card.sha256]
        for entry in sorted(same, key=lambda entry: entry.version, reverse=True):
            with suppress(RegistryError, CardError, CheckpointError):
                version = self._version(entry, {})
                if version.card == card and version.retired is None and self.weights(version):
                    return version
        return None

    def _create(self, folder: Path, packed: "Packed", alias: str | None) -> int:
        card, client = packed.card, self._mlflow.client
        tags = {
            "classes": ",".join(name for name in card.classes if name is not None),
            "voxel_size_nm": "x".join(f"{v:g}" for v in card.voxel_size_nm),
            "architecture": card.architecture,
            "sha256": card.sha256 or "",
            _CARD_SHA256: sha256(folder / CARD),
            **({"fine_tuned_from": card.fine_tuned_from} if card.fine_tuned_from else {}),
            **({"merged_from": " ".join(card.merged_from)[:TAG_CHARACTERS]} if card.merged_from else {}),
            _WEIGHTS_BYTES: str(packed.weights_bytes),
            _PATCH_BYTES: str(packed.patch_bytes),
        }
        with self.runs.finishing(MODELS, card.name, tags) as run:
            client.log_artifacts(run.info.run_id, str(folder), FOLDER)
            now = int(time.time() * 1000)
            scores = [MetricPoint(f"validation_{name}", score, now, 0) for name, score in card.validation.items()]
            self.runs.add_points(run.info.run_id, scores)
        try:
            unless_there(lambda: client.create_registered_model(card.name))
            number = self._create_version(packed, run, tags)
            if alias is not None:
                self._move(card.name, alias, number, "registered")
        except BaseException:
            for entity in self._versions_of(run):  # also one that was made although the answer got lost
                client.delete_model_version(entity.name, entity.version)
            client.delete_run(run.info.run_id)
            raise
        return number

    def _create_version(self, packed: "Packed", run: "Run", tags: dict[str, str]) -> int:
        from registry.mlflow_notes import version_note

        source = f"{run.info.artifact_uri}/{FOLDER}"
        note = version_note(packed.card, run.info.run_id, FOLDER, packed.pictured)[:NOTE_CHARACTERS]

        def create() -> int:
            versions = self._versions_of(run)
            if versions:
                return int(versions[0].version)
            entity = self._mlflow.client.create_model_version(
                packed.card.name,
                source,
                run.info.run_id,
                tags=tags,
                description=note,
                await_creation_for=READY_WITHIN_S,
            )
            return int(entity.version)

        return persistently(create)

    def _versions_of(self, run: "Run") -> "list[MlflowVersion]":
        return list(pages(self._mlflow.client.search_model_versions, f"run_id = '{run.info.run_id}'"))


def _on_one_line(reason: str) -> str:
    """The reason on one line. Raises RegistryError for none."""
    if not reason.split():
        raise RegistryError("--reason: say why, for those who wonder later")
    return one_line(reason)


def _is_ours(entry: Entry) -> bool:
    """Whether this program registered the version, with a card."""
    has_tags = all(entry.tags.get(tag) for tag in _REQUIRED_TAGS)
    sizes = (entry.tags.get(tag, "") for tag in (_WEIGHTS_BYTES, _PATCH_BYTES))
    return bool(entry.run_id and entry.source and has_tags) and all(map(str.isdecimal, sizes))
