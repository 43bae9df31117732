"""Whether a file is, bit for bit, the one that was registered; told without torch."""

import hashlib
from pathlib import Path

from ensemble.support import CheckpointError


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Raise CheckpointError unless the file is there and its SHA-256 is ``expected``."""
    try:
        actual = sha256(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the weights: {error.strerror}") from error
    if actual != expected:
        raise CheckpointError(
            f"{path}: damaged or exchanged: its sha256 is {actual[:12]}…, registered was {expected[:12]}…;"
            " register the checkpoint again"
        )
