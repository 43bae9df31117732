"""Whatever a checkpoint or a card holds: it is read, or refused in one line, and nothing of it is executed."""

import os
import shutil

import pytest

from ensemble.support import EnsembleError
from registry import checkpoint, draft, networks, weights
from registry.card import load_card
from tests.fuzz import cards, checkpoints
from tests.support.networks_small import unet

INPUTS = int(os.environ.get("FUZZ_INPUTS", "100"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return checkpoints.write_corpus(tmp_path_factory.mktemp("fuzz") / "corpus")


def _refused(number: int, call, *arguments) -> bool:
    """Whether an input is refused, as people are told of it; any other exception names the input's number."""
    said = ""
    try:
        call(*arguments)
    except EnsembleError as error:
        said = str(error)
    except BaseException as error:
        raise AssertionError(f"input {number}: {type(error).__name__}") from error
    assert "\n" not in said, number
    return said != ""


def test_a_checkpoint_is_read_or_refused_and_nothing_of_it_runs(tmp_path, corpus):
    blank, refused = unet(), 0
    for number in range(INPUTS):
        path = checkpoints.mutated(corpus, number, tmp_path / str(number))
        refused += _refused(number, lambda path: weights.fit(checkpoint.read(path), blank), path)
        _refused(number, lambda path: draft.draft_card(path).text(), path)
        shutil.rmtree(tmp_path / str(number))
        assert checkpoints.EXECUTED == [], number
    assert 0 < refused < INPUTS


def test_whole_ones_are_read_though_their_payloads_are_not(corpus):
    for path in corpus:
        hostile = path.stem.startswith(("shell", "whole"))
        assert _refused(0, lambda path: weights.fit(checkpoint.read(path), unet()), path) == hostile, path
    assert checkpoints.EXECUTED == []


def test_a_card_is_of_a_network_or_refused(tmp_path):
    refused = 0
    for number in range(INPUTS):
        path = cards.mutated(number, tmp_path / str(number))
        refused += _refused(number, lambda path: networks.blank_for_card(load_card(path), path), path)
    assert 0 < refused < INPUTS
