"""The lock of a build: the models it was made with stay until told otherwise."""

from pathlib import Path

import pytest

from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.lock import resolve_models, write_lock
from ensemble.support.digests import library_versions
from ensemble.support.errors import RegistryError
from tests.support.small_build import card, checkpoint, run


def test_a_moved_alias_is_told_and_the_lock_obeyed_until_told_otherwise(built, store, capsys) -> None:
    first = Path("build/small/submission.zip").read_bytes()
    moved = store.register(checkpoint(built / "b.pt", 2, 3), card("coarse", ("nuc", "mito"), 16), alias="champion")
    try:
        Path("build/small/submission.zip").unlink()
        assert run() == 0
        assert f"now means version {moved.version}; this build keeps version 1" in capsys.readouterr().err
        assert Path("build/small/submission.zip").read_bytes() == first
        assert run("--update-lock") == 0
        assert Path("build/small/submission.zip").read_bytes() != first
    finally:
        store.set_alias("coarse", "champion", 1, "back")


def test_without_a_lock_an_alias_is_what_it_means_now(place, store, tmp_path) -> None:
    recipe = recipe_file.load_recipe("small.yaml")
    found = resolve_models(recipe, ["fine", "theirs"], store, tmp_path / "lock.yaml", update=False)
    assert {name: (model.name, model.version) for name, model in found.models.items()} == {"fine": ("fine", 1)}
    assert (found.moved, found.threads) == ((), None)


@pytest.mark.parametrize("digest", ["sha256", "card_sha256"])
def test_a_version_with_other_weights_or_another_card_than_the_lock_says_is_refused(
    place, store, tmp_path, digest
) -> None:
    recipe, lock = recipe_file.load_recipe("small.yaml"), tmp_path / "lock.yaml"
    model = store.resolve(recipe.sources["fine"].uri)
    said = {"uri": recipe.sources["fine"].uri, "name": "fine", "version": 1}
    said |= {"sha256": model.sha256, "card_sha256": model.card_sha256}
    write_lock(lock, {"models": {"fine": said}, "threads": 1})
    assert resolve_models(recipe, ["fine"], store, lock, update=False).moved == ()
    write_lock(lock, {"models": {"fine": {**said, digest: "0" * 64}}, "threads": 1})
    with pytest.raises(RegistryError, match=r"small\.yaml:.*has other weights or another card than .*lock\.yaml"):
        resolve_models(recipe, ["fine"], store, lock, update=False)
    assert resolve_models(recipe, ["fine"], store, lock, update=True).models["fine"].version == 1


@pytest.mark.parametrize("text", ["models: 3\n", "[1]\n", "models: {}\nthreads: 0\n"])
def test_a_file_that_is_no_lock_is_told_and_can_be_replaced(place, store, tmp_path, text) -> None:
    (tmp_path / "lock.yaml").write_text(text)
    recipe = recipe_file.load_recipe("small.yaml")
    with pytest.raises(RegistryError, match=r"lock\.yaml: not a lock of this tool; remove it, or say --update-lock"):
        resolve_models(recipe, ["fine"], store, tmp_path / "lock.yaml", update=False)
    assert resolve_models(recipe, ["fine"], store, tmp_path / "lock.yaml", update=True).models["fine"].version == 1


def test_versions_are_those_installed() -> None:
    import numpy

    assert library_versions(["numpy", "no-such-package"]) == {
        "numpy": numpy.__version__,
        "no-such-package": "not installed",
    }
