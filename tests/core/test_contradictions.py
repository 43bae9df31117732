"""The relations between classes against the class table itself, read set by set."""

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.core import classes as taxonomy
from ensemble.core import manifest
from ensemble.core.codebook import codebook_of
from ensemble.core.contradictions import BROKEN_OTHERWISE, count_violations, pack_bits, relations_of, violating_voxels

OFFICIAL = sorted({target.classes for target in manifest.official_manifest()}, key=len)
SCORED = max(OFFICIAL, key=len)


def atoms_of(name: str) -> set[str]:
    return set(taxonomy.all_classes()[name].parts or (name,))


def legal(classes: tuple[str, ...]) -> set[frozenset[str]]:
    every = set().union(*(atoms_of(name) for name in taxonomy.all_classes()))
    return {frozenset()} | {frozenset(name for name in classes if atom in atoms_of(name)) for atom in every}


@st.composite
def voxels(draw: st.DrawFn) -> tuple[tuple[str, ...], list[frozenset[str]]]:
    """Some classes, and voxels that hold any of them: codewords with a class more or less, and any sets."""
    classes = draw(st.sampled_from(OFFICIAL) | st.sets(st.sampled_from(SCORED), min_size=1, max_size=12).map(tuple))
    near = st.tuples(st.sampled_from(sorted(legal(classes), key=sorted)), st.sets(st.sampled_from(classes), max_size=2))
    any_set = st.frozensets(st.sampled_from(classes), max_size=6)
    held = st.lists(near.map(lambda pair: frozenset(pair[0] ^ pair[1])) | any_set, min_size=1, max_size=70)
    return classes, draw(held)


@settings(max_examples=150)
@given(voxels())
def test_every_voxel_that_is_no_codeword_is_counted_where_it_breaks_the_class_table(case) -> None:
    classes, held = case
    book = codebook_of(frozenset(classes))
    masks = [np.array([name in one for one in held]) for name in book.classes]
    planes = [pack_bits(mask) if mask.any() else None for mask in masks]
    if all(plane is None for plane in planes):
        return
    found = count_violations(book, planes, violating_voxels(book, planes))
    wrong = [one for one in held if one not in legal(classes)]
    assert found.voxels == len(wrong)
    for words, count in found.relations.items():
        if words != BROKEN_OTHERWISE:
            assert count == sum(_breaks(words, one, classes) for one in wrong) > 0
    explained = {relation.broken_words for relation in relations_of(book)}
    otherwise = sum(not any(_breaks(words, one, classes) for words in explained) for one in wrong)
    assert found.relations.get(BROKEN_OTHERWISE, 0) == otherwise
    if not _overlapping(classes):
        assert not otherwise


def _breaks(words: str, held: frozenset[str], classes: tuple[str, ...]) -> bool:
    """Whether a voxel is what the words say."""
    one, *said = words.split(" ")
    if said[0] == "outside":
        assert atoms_of(one) < atoms_of(said[1])
        return one in held and said[1] not in held
    if said[0] == "and":
        assert not atoms_of(one) & atoms_of(said[1])
        return {one, said[1]} <= held
    parts = {name for name in classes if atoms_of(name) < atoms_of(one)}
    assert said == ["without", "its", "parts"] and set().union(*map(atoms_of, parts)) == atoms_of(one)
    return one in held and not held & parts


def _overlapping(classes: tuple[str, ...]) -> bool:
    pairs = ((atoms_of(a), atoms_of(b)) for a, b in combinations(classes, 2))
    return any(a & b and not a <= b and not b <= a for a, b in pairs)


def test_only_the_nearest_relations_are_named() -> None:
    said = {
        relation.broken_words for relation in relations_of(codebook_of(frozenset(["cell", "mito", "mito_mem", "ecs"])))
    }
    assert said == {"mito_mem outside mito", "mito outside cell", "ecs and cell at once"}
    assert "mito without its parts" in {r.broken_words for r in relations_of(codebook_of(frozenset(SCORED)))}
