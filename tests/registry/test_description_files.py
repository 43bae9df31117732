"""Files beside a checkpoint, and what their labels mean."""

import pytest

from ensemble.support.errors import CheckpointError
from registry.description_files import known_class, mapping, read_json


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("mito", "mito"),
        ("Mitochondria", "mito"),
        ("endoplasmic_reticulum", "er"),
        ("  Lipid-Droplet ", "ld"),
        ("ER mem", "er_mem"),
        ("background", None),
        (3, None),
        (None, None),
    ],
)
def test_a_label_means_a_class_whatever_its_spelling(label, name):
    assert known_class(label) == name


@pytest.mark.parametrize(("text", "fault"), [("{", "not JSON"), ("[1]", "a list where keys are expected")])
def test_a_description_that_is_none_is_told_by_its_path(tmp_path, text, fault):
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(CheckpointError, match=fault) as caught:
        read_json(tmp_path / "d.json")
    assert str(caught.value).startswith(f"{tmp_path}/d.json: ")
    with pytest.raises(CheckpointError, match="cannot read it: No such file"):
        read_json(tmp_path / "absent.json")


def test_what_is_no_mapping_says_nothing():
    assert mapping({"a": 1}) == {"a": 1}
    assert mapping([1]) == mapping(None) == {}
