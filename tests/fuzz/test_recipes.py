"""Spoilt recipes are read or refused in one line."""

import random
from pathlib import Path

from ensemble.plan import recipe_reader
from ensemble.support import yaml_files
from tests.fuzz.mutations import spoilt_bytes, spoilt_value
from tests.fuzz.running import outcomes
from tests.support.final_recipe import FINAL


def test_a_recipe_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(FINAL)
    data, _ = yaml_files.load_yaml(path, AssertionError)

    def run(rng: random.Random) -> None:
        if rng.random() < 0.5:
            path.write_bytes(spoilt_bytes(rng, FINAL.encode()))
        else:
            path.write_text(yaml_files.dump_yaml(spoilt_value(rng, data)))
        recipe_reader.load_recipe(path)

    counts = outcomes(150, run)
    assert counts["refused"] > 0
    assert counts["read"] > 0
