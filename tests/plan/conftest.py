"""What tests of recipes share."""

from pathlib import Path

import pytest

from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.recipe import Recipe


@pytest.fixture
def load(tmp_path: Path):
    def load(text: str) -> Recipe:
        path = tmp_path / "final.yaml"
        path.write_text(text)
        return recipe_file.load_recipe(path)

    return load
