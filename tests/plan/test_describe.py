"""A plan in plain values and in words."""

import pytest

from ensemble.plan.describe import describe_route, expression_as_recipe, model_source_as_recipe, route_in_words
from ensemble.plan.recipe import ModelSource
from tests.support.final_recipe import FINAL, target


def test_a_route_is_told_in_words_and_as_plain_values(load):
    final = load(FINAL)
    mito = final.route("mito", target("557"))
    assert route_in_words(mito) == (
        "mean of 3 mito_l + 1 multi_m, threshold 0.46, watershed min_distance_nm=40, drop_small min_size_voxels=50"
    )
    assert describe_route(mito) == {
        "source": {"mean": [["mito_l", 3.0], ["multi_m", 1.0]]},
        "threshold": 0.46,
        "weight": 1.0,
        "resampling": "linear",
        "postprocess": [{"watershed": {"min_distance_nm": 40.0}}, {"drop_small": {"min_size_voxels": 50}}],
    }
    assert route_in_words(final.route("nuc", target("557"))) == "old, threshold 0.5, weight hard, keep_ids"
    assert route_in_words(final.route("er_mem_all", target("557"))).startswith("union of er_mem, eres_mem, ne_mem, ")
    assert route_in_words(final.route("golgi", target("557"))).startswith("empty, ")


@pytest.mark.parametrize("source", ["{mean: {multi_m: 2, mito_l: 1}}", "{max: [mito_l, multi_m]}", "multi_m", "empty"])
def test_a_source_written_as_a_recipe_says_it_is_read_as_the_same(load, source):
    text = "name: r\nsources: {multi_m: {model: 'models:/a@b'}, mito_l: {model: 'models:/c@d'}}\nclasses: "
    read = load(text + f"{{nuc: {{source: {source}}}}}\n").route("nuc", target("557"))
    again = load(text + f"{{nuc: {{source: {expression_as_recipe(read.source)!r}}}}}\n").route("nuc", target("557"))
    assert again.source == read.source


@pytest.mark.parametrize(
    "source",
    [
        ModelSource("models:/a@b"),
        ModelSource("models:/a@b", "mirror", "any", overlap=0.25, context=False),
        ModelSource("models:/a/3", overlap=0.0, context=True),
    ],
)
def test_a_model_source_written_as_a_recipe_says_it_is_read_as_the_same(load, source):
    said = model_source_as_recipe(source)
    assert load(f"name: r\nsources: {{m: {said!r}}}\n").sources["m"] == source
    assert len(said) == 1 + sum(value not in ("none", "as trained", None) for value in vars(source).values()) - 1
