"""What machines took, kept beside the registry."""

import json
import platform

import pytest

from registry.paces import Paces


def test_what_was_noted_last_on_this_machine_is_found(tmp_path):
    path = tmp_path / "new" / "paces.json"
    Paces(path).keep("a patch", 0.25)
    Paces(path).keep("a patch", 0.5)
    Paces(path).keep("another", 2.0)
    assert Paces(path).seconds("a patch") == 0.5
    assert Paces(path).seconds("a third") is None
    elsewhere = {"elsewhere: a patch": 9.0, f"{platform.node()}: a patch": 0.5}
    path.write_text(json.dumps(elsewhere))
    assert Paces(path).seconds("a patch") == 0.5


@pytest.mark.parametrize(
    "text", ["", "[", "[]", "3", '{"HERE: a": "x"}', '{"HERE: a": -1.0}', '{"HERE: a": NaN}', "[" * 5000]
)
def test_what_makes_no_sense_is_not_known_and_is_written_over(tmp_path, text):
    path = tmp_path / "paces.json"
    path.write_text(text.replace("HERE", platform.node()))
    assert Paces(path).seconds("a") is None
    Paces(path).keep("a", 1.5)
    assert Paces(path).seconds("a") == 1.5


def test_a_place_that_cannot_be_written_keeps_nothing_and_stops_nobody(tmp_path):
    (tmp_path / "file").write_text("")
    paces = Paces(tmp_path / "file" / "paces.json")
    paces.keep("a", 1.0)
    assert paces.seconds("a") is None
