"""A tissue is grown from its seeds: the same each time, with the cells and nuclei that were asked for."""

import numpy as np
import pytest

from ensemble.core.grid import Grid
from ensemble.demo.scene import Scene
from ensemble.demo.tissue import Anatomy, Seed, grow

EXTENT_NM = np.array([400.0, 400.0, 600.0])
GRID = Grid((25, 25, 38), (16.0, 16.0, 16.0), (8.0, 8.0, 8.0))


@pytest.fixture(scope="module")
def grown() -> Scene:
    seeds = (Seed((200, 200, 180), 170, nucleated=True), Seed((200, 200, 480), 100))
    return grow(Anatomy((0.0, 0.0, 0.0), EXTENT_NM, seeds, ()), np.random.default_rng(1))


def test_each_seed_is_a_cell_of_its_own_and_only_a_nucleated_one_has_a_nucleus(grown):
    cells, nuclei = grown.instances_on(GRID, "cell"), grown.instances_on(GRID, "nuc")
    first, second = cells[12, 12, 11], cells[12, 12, 29]
    assert 0 < first != second > 0
    assert set(np.unique(nuclei)) == {0, 1}
    assert set(np.unique(cells[nuclei > 0])) == {first}


def test_the_same_draws_grow_the_same_tissue_and_others_another(grown):
    seeds = (Seed((200, 200, 180), 170, nucleated=True), Seed((200, 200, 480), 100))
    again, other = (grow(Anatomy((0, 0, 0), EXTENT_NM, seeds, ()), np.random.default_rng(seed)) for seed in (1, 2))
    assert np.array_equal(again.atoms_on(GRID), grown.atoms_on(GRID))
    assert not np.array_equal(other.atoms_on(GRID), grown.atoms_on(GRID))


def test_organelles_lie_in_cells_and_apart_from_nuclei(grown):
    inside = grown.instances_on(GRID, "cell") > 0
    for name in ("mito", "ves", "ld"):
        organelles = grown.instances_on(GRID, name) > 0
        assert inside[organelles].all()
        assert not (grown.instances_on(GRID, "nuc") > 0)[organelles].any()
