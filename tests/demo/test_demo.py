"""The demo: its recipe, its training specs and its data set fit each other."""

from importlib.resources import files
from pathlib import Path

from ensemble.demo.dataset import SAMPLES
from ensemble.demo.demo import RECIPE, SPECS
from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.plan import sources_in
from ensemble.train import spec as training_spec


def specs() -> dict[str, training_spec.TrainingSpec]:
    read = [training_spec.load_spec(Path(str(files("recipes"))) / "train" / name) for name in SPECS]
    return {f"models:/{spec.name}@{spec.alias}": spec for spec in read}


def test_the_demos_recipe_asks_its_models_for_classes_that_they_learn():
    recipe, trained = recipe_file.load_recipe(RECIPE), specs()
    assert {source.uri for source in recipe.sources.values()} == set(trained)
    for sample in SAMPLES:
        for name in sample.test.classes:
            for source in sources_in(recipe.route(name, sample.test).source):
                assert name in trained[recipe.sources[source].uri].classes


def test_the_demos_models_learn_from_crops_that_are_written_and_are_not_scored():
    written = {(sample.dataset, target.crop) for sample in SAMPLES for target in sample.training_targets}
    scored = {sample.test.crop for sample in SAMPLES}
    for spec in specs().values():
        named = {(dataset, crop) for dataset, crops in spec.crops.items() for crop in crops}
        assert named <= written
        assert not {crop for _, crop in named} & scored
