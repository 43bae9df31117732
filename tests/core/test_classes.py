"""The challenge's classes, as its table has them."""

from ensemble.core.classes import all_atoms, all_classes, ancestors_first, atoms_of, descendants, is_instance

SCORED_BY_OBJECT = {"nuc", "vim", "ves", "endo", "lyso", "ld", "perox", "mito", "np", "mt", "cell"}


def test_instance_classes_are_those_scored_object_by_object():
    assert {name for name in all_classes() if is_instance(name)} == SCORED_BY_OBJECT


def test_a_class_is_the_atoms_of_its_parts_and_an_atom_its_own():
    assert atoms_of("mito") == {"mito_mem", "mito_lum", "mito_ribo"}
    assert atoms_of("er_mem_all") >= {"er_mem", "eres_mem", "ne_mem"}
    assert atoms_of("ecs") == {"ecs"}
    assert set(all_atoms()) == {name for name in all_classes() if atoms_of(name) == {name}}
    assert all(atoms_of(name) <= set(all_atoms()) for name in all_classes())


def test_what_lies_within_a_class_comes_after_it():
    assert descendants("mito", ["cell", "mito", "mito_mem", "ecs"]) == {"mito_mem"}
    order = ancestors_first(reversed(all_classes()))
    assert sorted(order) == sorted(all_classes())
    assert not any(atoms_of(later) > atoms_of(earlier) for at, earlier in enumerate(order) for later in order[at:])
    ids = [row.id for row in all_classes().values()]
    assert ids == sorted(set(ids))
