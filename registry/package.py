"""What a registered version's folder holds: weights, card, and a golden patch with the network's answer."""

import math
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ensemble.support.errors import CardError, CheckpointError
from registry import card as cards
from registry import checkpoint as checkpoints
from registry import flavour, networks, weights
from registry.card import Card
from registry.files import CARD, GOLDEN, WEIGHTS
from registry.networks import Golden

MAX_GOLDEN_BYTES = 2 << 30


def pack(folder: Path, checkpoint: Path, card: Card, card_path: Path | None) -> Card:
    """Write a version's files into ``folder``; returns the card with the sha256 of the weights."""
    where = cards.place(card, card_path)
    # What the file holds is compared with a network that takes no memory before one that does is made.
    blank = networks.blank_for_card(card, card_path)
    state = weights.fit(checkpoints.read(checkpoint), blank)
    network = networks.for_card(card, card_path)
    network.load_state_dict(state)
    golden = networks.golden(network, card, where)
    weights.save(state, folder / WEIGHTS)
    digest = weights.sha256(folder / WEIGHTS)
    if card.sha256 not in (None, digest):
        what = f"the checkpoint holds other weights ({digest}); leave the key out"
        raise CardError(f"{where('sha256')}: {what}")
    card = card.model_copy(update={"sha256": digest})
    (folder / CARD).write_text(cards.dump(card), encoding="utf-8")
    np.savez_compressed(folder / GOLDEN, input=golden.grey, output=golden.probabilities)
    flavour.write(folder)
    return card


def read_golden(path: Path) -> Golden:
    """The golden patch and answer in a file. Raises CheckpointError for one that is damaged or asks for too much."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in ("input.npy", "output.npy"):
                with archive.open(name) as member:
                    version = np.lib.format.read_magic(member)
                    header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
                    shape, _, dtype = header(member)
                    whole = member.tell() + math.prod(shape) * dtype.itemsize
                if whole != archive.getinfo(name).file_size or whole > MAX_GOLDEN_BYTES:
                    raise ValueError(f"{name} says that it holds {whole:,} bytes")
        with np.load(path, allow_pickle=False) as held:
            return Golden(held["input"], held["output"])
    except (
        *(OSError, ValueError, LookupError, AttributeError, EOFError, RuntimeError, MemoryError, SyntaxError),
        *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
    ) as error:
        raise CheckpointError(f"{path}: its golden answer is damaged; register the model again") from error
