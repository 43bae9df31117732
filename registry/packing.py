"""A checkpoint with its card made into the files of a registered version."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from ensemble.support import CardError
from registry import card as cards
from registry import checkpoint as checkpoints
from registry import golden, mlflow_notes, networks, pyfunc, weights
from registry.card import Card
from registry.checksums import sha256
from registry.version_folder import CARD, GOLDEN, WEIGHTS


@dataclass(frozen=True)
class Packed:
    """The card of what was packed, with the sha256 of its weights, the bytes its network takes, and the classes in its
    picture, if it has one.

    See ``networks.footprint``.
    """

    card: Card
    weights_bytes: int
    patch_bytes: int
    pictured: tuple[str, ...]


def pack(
    folder: Path,
    checkpoint: Path,
    card: Card,
    card_path: Path | None,
    weights_key: str | None = None,
    shown: NDArray[Any] | None = None,
) -> Packed:
    """Write a version's files into ``folder``; ``weights_key`` as in ``checkpoint.read``.

    ``shown``: EM (z, y, x), a patch of the card's, of which a picture is made with the network's answer.
    Raises CheckpointError or CardError for what does not fit.
    """
    where = cards.where_in(card, card_path)
    # What the file holds is compared with a network that takes no memory before one that does is made.
    blank = networks.blank_for_card(card, card_path)
    state = weights.fit(checkpoints.read(checkpoint, weights_key), blank, len(card.classes))
    network = networks.with_weights(card, state)
    answered = golden.record(network, blank, card, where)
    weights.save_weights(state, folder / WEIGHTS)
    digest = sha256(folder / WEIGHTS)
    if card.sha256 not in (None, digest):
        fault = f"the checkpoint holds other weights ({digest}); leave the key out"
        raise CardError(f"{where('sha256')}: {fault}")
    card = card.model_copy(update={"sha256": digest})
    (folder / CARD).write_text(cards.dump_card(card), encoding="utf-8")
    golden.write(answered, folder / GOLDEN)
    pictured: tuple[str, ...] = ()
    if shown is not None:
        probabilities = golden.answer(network, card, shown, torch.device("cpu"))
        pictured = mlflow_notes.write_picture(card, shown, probabilities, folder)
    pyfunc.write(folder, card, answered)
    return Packed(card, *networks.footprint(blank, card.patch_voxels), pictured)
