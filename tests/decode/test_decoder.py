"""Joint decoding against an oracle written from its definition: sets, sums and a loop."""

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.core import classes as taxonomy
from ensemble.core import manifest
from ensemble.core.codebook import codebook_of
from ensemble.decode.decoder import Decoder

SCORED = manifest.official_manifest()[0].classes


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def best_by_definition(book, thresholds, weights, hard, ps) -> set[frozenset[str]]:
    """The words that may be chosen: all within rounding of the best."""
    words = list(book.words)
    for index in hard:
        name, held = book.classes[index], ps[index] > thresholds[index]
        words = [w for w in words if (name in w) == held] or words

    def total(word: frozenset[str]) -> float:
        return sum(
            weights[i] * (logit(min(max(ps[i], 1 / 510), 1 - 1 / 510)) - logit(thresholds[i]))
            for i, name in enumerate(book.classes)
            if name in word and i not in hard
        )

    top = max(total(word) for word in words)
    return {word for word in words if total(word) >= top - 0.01}


@st.composite
def problems(draw: st.DrawFn):
    claimed = tuple(sorted(draw(st.sets(st.sampled_from(SCORED), min_size=1, max_size=12))))
    book = codebook_of(claimed)
    n = len(book.classes)
    thresholds = tuple(draw(st.lists(st.floats(0.05, 0.95), min_size=n, max_size=n)))
    weights = tuple(draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=n, max_size=n)))
    hard = tuple(draw(st.lists(st.integers(0, n - 1), unique=True, max_size=3)))
    return book, thresholds, weights, hard, draw(st.integers(0, 2**32 - 1))


@settings(max_examples=60)
@given(problems())
def test_every_voxel_gets_the_codeword_with_the_most_evidence(problem) -> None:
    book, thresholds, weights, hard, seed = problem
    ps = np.random.default_rng(seed).random((len(book.classes), 40), dtype=np.float32)
    codes = Decoder(book, thresholds, weights, hard).decide(list(ps))
    for voxel, code in enumerate(codes):
        allowed = best_by_definition(book, thresholds, weights, hard, ps[:, voxel].astype(float))
        assert book.words[code] in allowed


@settings(max_examples=100)
@given(problems(), st.floats(0.001, 1))
def test_words_that_cannot_win_within_bounds_are_left_out_and_nothing_else_changes(problem, width: float) -> None:
    book, thresholds, weights, hard, seed = problem
    rng = np.random.default_rng(seed)
    centre = rng.choice([0.0, 0.02, 0.5, 0.98, 1.0], (len(book.classes), 1))
    ps = np.clip(centre + rng.uniform(-width / 2, width / 2, (len(book.classes), 60)), 0, 1).astype(np.float32)
    decoder = Decoder(book, thresholds, weights, hard)
    words = decoder.survivors(ps.min(axis=1), ps.max(axis=1))
    needed = {i: ps[i] for i in decoder.needed(words)}
    short = decoder.decide(needed, words) if needed else np.full(60, words[0], np.uint8)
    assert np.array_equal(short, decoder.decide(list(ps)))


def test_where_every_class_is_sure_one_word_survives() -> None:
    book = codebook_of(SCORED)
    p = np.array([0.99 if name in ("cell", "mito", "mito_lum") else 0.0 for name in book.classes])
    decoder = Decoder(book, (0.5,) * len(p), (1.0,) * len(p))
    (word,) = decoder.survivors(p, p)
    assert book.words[word] == {"cell", "mito", "mito_lum"}


@settings(max_examples=40)
@given(problems())
def test_a_class_alone_is_p_above_its_threshold(problem) -> None:
    _, thresholds, _, _, seed = problem
    p = np.random.default_rng(seed).random(500, dtype=np.float32)
    p[:3] = 0, 1, thresholds[0]
    codes = Decoder(codebook_of(("mito",)), thresholds[:1], (1.0,)).decide([p])
    assert np.array_equal(codes == 1, p > np.float32(thresholds[0]))


def test_ties_go_to_the_shorter_word_then_to_the_first() -> None:
    book = codebook_of(("mito", "mito_mem", "mito_lum"))
    even = [np.full(1, 0.5, np.float32)] * 3
    decoder = Decoder(book, (0.5,) * 3, (1.0,) * 3)
    assert book.words[decoder.decide(even)[0]] == frozenset()
    for_mito = [np.full(1, p, np.float32) for p in ((0.5, 0.5, 0.9))]
    names = dict(zip(book.classes, for_mito, strict=True))
    assert book.classes == ("mito_mem", "mito_lum", "mito")
    assert book.words[decoder.decide(list(names.values()))[0]] == {"mito"}  # parts add nothing: the shorter
    without_other = codebook_of(("golgi", "golgi_mem", "golgi_lum"))
    ps = [np.full(1, p, np.float32) for p in (0.5, 0.5, 0.9)]
    chosen = Decoder(without_other, (0.5,) * 3, (1.0,) * 3).decide(ps)[0]
    assert without_other.words[chosen] == {"golgi", "golgi_mem"}  # as long as golgi_lum's, and before it


def test_evidence_against_and_for_cancels_exactly_whatever_the_order() -> None:
    book = codebook_of(("cell", "nuc", "nucpl"))
    p = {"cell": 0.7, "nuc": 0.3, "nucpl": 0.5}
    decoder = Decoder(book, (0.5,) * 3, (1.0,) * 3)
    code = decoder.decide([np.full(1, p[name], np.float32) for name in book.classes])[0]
    assert book.words[code] == {"cell"}


def test_the_first_hard_class_wins_a_conflict_and_hard_is_exact_without_one() -> None:
    book = codebook_of(("mito", "nuc", "cell"))
    index = book.classes.index
    ps = [np.array([0.9, 0.2, 0.5], np.float32)] * 3
    for first, second in itertools.permutations(("mito", "nuc")):
        decoder = Decoder(book, (0.5,) * 3, (1.0,) * 3, hard=(index(first), index(second)))
        words = [book.words[code] for code in decoder.decide(ps)]
        assert first in words[0]
        assert second not in words[0]
        assert "cell" in words[0]
        assert not words[1] & {"mito", "nuc"}
        assert not words[2] & {"mito", "nuc"}  # p = t is not above


@settings(max_examples=40)
@given(problems())
def test_redeciding_keeps_ancestors_and_drops_the_class_with_all_below_it(problem) -> None:
    book, thresholds, weights, hard, seed = problem
    rng = np.random.default_rng(seed)
    ps = list(rng.random((len(book.classes), 50), dtype=np.float32))
    decoder = Decoder(book, thresholds, weights, hard)
    codes = decoder.decide(ps)
    for lost in book.classes:
        new = decoder.redecide(ps.__getitem__, codes, lost)
        gone = {c for c in book.classes if taxonomy.atoms_of(c) < taxonomy.atoms_of(lost)} | {lost}
        for before, after in zip(codes, new, strict=True):
            old = book.words[before]
            if lost not in old:
                assert before == after
                continue
            assert lost not in book.words[after]
            assert book.instances_of[after] == book.instances_of[before] - gone


def test_very_large_weights_do_not_wrap() -> None:
    book = codebook_of(("mito", "nuc"))
    decoder = Decoder(book, (0.5, 0.5), (1e6, 1e-3))
    ps = [np.array([0.6, 0.4], np.float32), np.array([0.99, 0.99], np.float32)]
    words = [book.words[code] for code in decoder.decide(ps)]
    assert words[0] == {book.classes[0]}
    assert words[1] <= {book.classes[1]}
