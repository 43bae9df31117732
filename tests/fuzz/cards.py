"""Cards that say odd things."""

import json
import random
from pathlib import Path

from tests.fuzz.checkpoints import changed_bytes, odd_value
from tests.support.networks_small import SMALL, card


def mutated(seed: int, place: Path) -> Path:
    """A card of some network, changed at a few places as ``seed`` says: a file in the new folder ``place``."""
    chance = random.Random(seed)
    architecture = chance.choice(sorted(SMALL))
    whole = card(architecture=architecture, arguments=SMALL[architecture], em_dtype="uint8", em_range=(0, 255))
    place.mkdir()
    file = place / "card.yaml"
    text = json.dumps(odd_value(json.loads(whole.model_dump_json(exclude={"sha256"})), chance))
    file.write_bytes(changed_bytes(text.encode(), chance) if chance.random() < 0.3 else text.encode())
    return file
