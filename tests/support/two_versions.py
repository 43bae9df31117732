"""Two versions of one model in a registry, and the commands on them."""

import tempfile
from pathlib import Path

import pytest
import torch

from ensemble.cli import main
from registry.store import Registry
from tests.support.networks_small import card, unet

CPU = torch.device("cpu")


def registered(store: Registry) -> Registry:
    """The registry with versions 1, the champion, and 2 of the model "m"; the first scored better."""
    for seed, score in ((1, 0.8), (2, 0.7)):
        described = card(validation={"mito": score}, trained_on=["7"], normalisation={"divide": 200 + seed})
        with tempfile.TemporaryDirectory() as folder:
            torch.save(unet(seed).state_dict(), Path(folder, "c.pt"))
            store.register(Path(folder, "c.pt"), described, alias="champion" if seed == 1 else None)
    return store


def said(capsys: pytest.CaptureFixture, *arguments: str, code: int = 0) -> str:
    """What the command prints; on stderr where its input is wrong."""
    capsys.readouterr()
    assert main([*arguments]) == code
    found = capsys.readouterr()
    return found.err if code == 2 else found.out
