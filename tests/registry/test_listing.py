"""What is registered, read from a copy that never outlives a change."""

import json
import shutil

from registry.listing import Entry, Listing, Model, read_listing
from registry.store import Registry
from tests.support.processes import python
from tests.support.small_models import card, checkpoint

READ = """
import sys
from registry import Registry
uris = [version.uri for version in Registry(sys.argv[1]).versions()]
print(uris, sorted({"torch", "mlflow", "monai", "sqlalchemy"} & set(sys.modules)))
"""


def test_a_reader_sees_each_change_at_once_though_it_need_not_ask_mlflow(store, tmp_path):
    version = store.register(checkpoint(tmp_path / "c.pt"), card(), alias="champion")
    (copy,) = (tmp_path / "a store").glob("*.listing.json")
    done = python(READ, store.tracking_uri)
    assert (done.stdout.strip(), done.stderr) == (f"['{version.uri}'] []", "")

    reader = Registry(store.tracking_uri)
    store.set_alias(version.name, "best", 1, "a change that the copy does not hold")
    assert reader.resolve(f"models:/{version.name}@best").aliases == ("best", "champion")
    shutil.copy(copy, tmp_path / "kept.json")
    store.set_alias(version.name, "later", 1, "then an older copy is put back")
    shutil.copy(tmp_path / "kept.json", copy)
    assert "later" in reader.versions()[0].aliases


def test_a_copy_that_is_damaged_is_as_good_as_none(store, tmp_path):
    store.register(checkpoint(tmp_path / "c.pt"), card(), alias="champion")
    with store._mlflow.answering():
        whole = read_listing(store._mlflow)
        (copy,) = (tmp_path / "a store").glob("*.listing.json")
        state = json.loads(copy.read_text())["state"]
        for text in ("", "{}", "[]", json.dumps({"state": state, "entries": [{}], "models": {}})):
            copy.write_text(text)
            assert read_listing(Registry(store.tracking_uri)._mlflow) == whole
            assert json.loads(copy.read_text())["state"] == state


def test_versions_and_aliases_are_those_of_the_name_asked_for():
    entries = tuple(Entry(name, number, "", "", 0, {}) for name, number in (("a", 2), ("b", 1), ("a", 1)))
    listing = Listing(entries, {"a": Model({"champion": 2}, {})})
    assert listing.of("a") == {1: entries[2], 2: entries[0]}
    assert (listing.aliases("a"), listing.aliases("b")) == ({"champion": 2}, {})
