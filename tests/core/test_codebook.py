"""The codewords of a crop, against the class table read atom by atom."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.core import classes as taxonomy
from ensemble.core import manifest
from ensemble.core.codebook import automaton, codebook_of

SCORED = manifest.official_manifest()[0].classes


def words_by_definition(claimed: tuple[str, ...]) -> set[frozenset[str]]:
    words = {frozenset()}
    for atom, row in taxonomy.all_classes().items():
        if not row.parts:
            words.add(frozenset(c for c in claimed if atom in (taxonomy.all_classes()[c].parts or (c,))))
    return words


@pytest.mark.parametrize("target", manifest.official_manifest(), ids=lambda target: target.crop)
def test_codewords_of_every_official_crop(target: manifest.Target) -> None:
    book = codebook_of(target.classes)
    assert set(book.words) == words_by_definition(target.classes)
    assert book.words[0] == frozenset()
    assert [len(word) for word in book.words] == sorted(len(word) for word in book.words)


def test_a_crop_of_all_classes_has_35_codewords_and_52_additions() -> None:
    from ensemble.decode.decoder import _steps

    book = codebook_of(SCORED)
    assert len(book.words) == 35
    assert len(_steps(book, tuple(range(35)))) == 52


@pytest.mark.parametrize("target", manifest.official_manifest(), ids=lambda target: target.crop)
def test_a_voxel_that_loses_a_class_always_has_somewhere_to_go(target: manifest.Target) -> None:
    book = codebook_of(target.classes)
    for number, word in enumerate(book.words):
        for lost in word:
            below = {c for c in book.classes if taxonomy.atoms_of(c) < taxonomy.atoms_of(lost)} | {lost}
            kept = {c for c in word if taxonomy.is_instance(c)} - below
            allowed = book.without(number, lost)
            assert allowed
            for other in allowed:
                assert lost not in book.words[other]
                assert {c for c in book.words[other] if taxonomy.is_instance(c)} == kept


@settings(max_examples=40)
@given(st.sets(st.sampled_from(SCORED), min_size=1, max_size=48), st.integers(0, 2**32 - 1))
def test_the_automaton_ends_dead_on_the_sets_that_are_no_codewords(claimed: set[str], seed: int) -> None:
    book = codebook_of(tuple(sorted(claimed)))
    rng = np.random.default_rng(seed)
    masks = book.table[rng.integers(0, len(book.words), 60)].T.copy()
    flips = rng.random(masks.shape) < 0.02
    masks ^= flips
    legal = words_by_definition(book.classes)
    expected = [
        frozenset(name for name, held in zip(book.classes, masks[:, v], strict=True) if held) not in legal
        for v in range(masks.shape[1])
    ]
    state = np.ones(masks.shape[1], np.uint16)
    for table, bits in zip(automaton(book), masks, strict=True):
        state = table[state, bits.astype(np.uint8)]
    assert (state == 0).tolist() == expected
