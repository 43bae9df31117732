"""A registered model as one file, for those who do not share a server."""

import tempfile
import zipfile
from pathlib import Path

import torch

from ensemble.support import NOT_A_ZIP, CheckpointError, RegistryError, replacing
from registry import golden, networks
from registry.card import load_card
from registry.checkpoint import listed
from registry.store import ModelVersion, Registry
from registry.version_folder import CARD, GOLDEN, WEIGHTS
from registry.weights import load_network

MEMBERS = (CARD, WEIGHTS, GOLDEN)
MAX_BYTES = {CARD: 1 << 20, GOLDEN: golden.MAX_BYTES, WEIGHTS: 4 * networks.MAX_PARAMETERS + (16 << 20)}
_EPOCH = (1980, 1, 1, 0, 0, 0)


def export_model(registry: Registry, version: ModelVersion, file: Path) -> None:
    """Write the version's weights, card and golden answer as a zip; equal models give equal bytes."""
    paths = {
        WEIGHTS: registry.weights(version),
        CARD: registry.file(version, CARD),
        GOLDEN: registry.file(version, GOLDEN),
    }
    if not file.name or file.is_dir():
        raise RegistryError(f"{file}: name a file to write")
    try:
        with replacing(file) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for name in MEMBERS:
                with (
                    paths[name].open("rb") as source,
                    archive.open(zipfile.ZipInfo(name, _EPOCH), "w", force_zip64=True) as member,
                ):
                    while block := source.read(1 << 20):
                        member.write(block)
    except OSError as error:
        raise RegistryError(f"{file}: cannot write it: {error.strerror}") from error


def import_model(registry: Registry, file: Path, alias: str | None) -> ModelVersion:
    """Register the model in a file that ``export_model`` wrote, once its network gives its golden answer here.

    Raises RegistryError for a file that is none, CheckpointError for one that is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="ensemble-import-") as folder:
        _unpack(Path(file), Path(folder))
        card = load_card(Path(folder) / CARD)
        if card.sha256 is None:
            raise RegistryError(f"{file}: its card says no sha256; export the model again")
        weights = Path(folder) / WEIGHTS
        network = load_network(card, weights)
        stored = golden.read(Path(folder) / GOLDEN)
        deviation = golden.deviation(network, card, stored, torch.device("cpu")).max()
        if not deviation <= golden.LIMIT:
            raise CheckpointError(
                f"{file}: its network answers {deviation:.2g} from its golden answer here; the libraries differ too"
                " much, or its card was changed by hand"
            )
        # What they call models:/NAME/VERSION is another model here.
        parents = [*((card.fine_tuned_from,) if card.fine_tuned_from else ()), *card.merged_from]
        if parents:
            notes = f"{card.notes} Where it was made it came from {', '.join(parents)}.".strip()
            card = card.model_copy(update={"fine_tuned_from": None, "merged_from": (), "notes": notes})
        return registry.register(weights, card, alias=alias)


def _unpack(file: Path, folder: Path) -> None:
    """Exactly the three members, as long as they may be."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if sorted(members) != sorted(MEMBERS) or len(archive.infolist()) != len(MEMBERS):
                raise RegistryError(
                    f"{file}: holds {listed(members) or 'nothing'}; expected what ensemble models export writes"
                )
            for name, info in members.items():
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > MAX_BYTES[name]:
                    raise RegistryError(f"{file}: {name} is compressed or too long; export the model again")
                with archive.open(info) as source, (folder / name).open("wb") as target:
                    while block := source.read(1 << 20):
                        target.write(block)
    except FileNotFoundError as error:
        raise RegistryError(f"{file}: there is no such file") from error
    except OSError as error:
        raise RegistryError(f"{file}: cannot read it: {error.strerror or error}") from error
    except (RuntimeError, *NOT_A_ZIP) as error:
        raise CheckpointError(f"{file}: damaged or no exported model: {error}; copy it again") from error
