"""Recipe files: each mistake is one line with file, line and what to do."""

import pytest

from ensemble.core import classes as taxonomy
from ensemble.core import manifest
from ensemble.methods.method_table import Stage
from ensemble.plan import recipe_reader as recipe_file
from ensemble.support.errors import RecipeError
from tests.support.final_recipe import FINAL, target


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("drop_small", "drop_smal", 12, "did you mean 'drop_small'?"),
        ("min_size_voxels", "min_size", 12, "unknown key"),
        ("{min_size_voxels: 50}", "{min_size_voxels: 50, min_size_nm3: 9}", 12, "exactly one of"),
        ("min_distance_nm: 40", "min_distance_nm: -1", 12, "greater than or equal to 0.01"),
        ("{mito_l: 3,", "{mito_x: 3,", 10, "did you mean 'mito_l'?"),
        ("{mito_l: 3,", "{mito_l: -3,", 10, "from 1e-06 to 1e+06"),
        ("{mean:", "{maen:", 10, "did you mean 'mean'?"),
        ("threshold: 0.46", "threshold: 1.46", 11, "less than or equal to 0.999999"),
        ("threshold: 0.5}", "treshold: 0.5}", 7, "did you mean 'threshold'?"),
        ('">=16"', '"16 nm"', 14, "comparison"),
        ('{voxel_size_nm: ">=16", source', "{source", 14, "no condition"),
        ("consistency: joint", "consistency: joined", 19, "did you mean 'joint'?"),
        ("[er_mem,", "[er_mm,", 16, "did you mean 'er_mem'?"),
        ("[er_mem,", "[er_mem_all,", 16, "made of itself"),
        ("  er_mem_all:", "  mito:", 16, "there twice"),
        ("  er_mem_all:", "  er_mem_al:", 16, "did you mean 'er_mem_all'?"),
        ("empty: [golgi]", "empty: [mito]", 18, "listed elsewhere"),
        ('{voxel_size_nm: ">=16", source', "{crop: '557,558', source", 14, "give each an entry"),
        ("empty: [golgi]", "empty: [golgy]", 18, "did you mean 'golgi'?"),
        ("tta: mirror", "tta: flips", 3, "'flips' is not known"),
        ("{class}", "{clas}", 5, "did you mean 'class'?"),
        ("mito-l-4nm@champion", "mito-l-4nm", 3, "models:/NAME@ALIAS"),
        ("source: old, weight: hard", "source: multi_m", 17, "needs a source of labels"),
        ("old: {labels:", "old: {tta: mirror, labels:", 6, "only a model"),
        ("old: {labels:", "old: {overlap: 0.5, labels:", 6, "only a model has patches that overlap"),
        ("tta: mirror", "overlap: 1", 3, "must be less than 1"),
        ("tta: mirror", "overlap: -0.1", 3, "must be greater than or equal to 0"),
        ("tta: mirror", "context: 16", 3, "must be a valid boolean"),
        ("old: {labels:", "old: {scale: 255, labels:", 6, "only stored predictions have a value that stands for 1"),
        ("old: {labels:", "old: {activation: sigmoid, labels:", 6, "only stored predictions have raw outputs"),
        ("{predictions:", "{activation: sigmoid, scale: 255, predictions:", 5, "activation or scale, not both"),
        ("{predictions:", "{activation: softmax, predictions:", 5, "list them under channels"),
        ("{predictions:", "{activation: tanh, predictions:", 5, "'tanh' is not known"),
        ("{predictions:", "{scale: 0, predictions:", 5, "greater than or equal to 0.000001"),
        ("{predictions:", '{scale: "255", predictions:', 5, "must be a valid number"),
        ("[keep_ids]", "[keep_ids, components]", 17, "labelled once"),
        ("[keep_ids]", "[{drop_small: {min_size_nm3: 9}}, {smooth: {sigma_nm: 8}}]", 17, "before the steps on objects"),
        ("[keep_ids]", "[components, {hysteresis: {high: 0.8}}]", 17, "before the labelling step"),
        ("{union: [er_mem, eres_mem, ne_mem]}", "multi_m, postprocess: [components]", 16, "semantic class"),
        ("er_mem_all: {source", "er_mem_all: {weight: 2, source", 16, "weight 0"),
        ("name: final", "name: ../final", 1, "pattern"),
        ("multi_m: {model", "empty: {model", 4, "cannot be a source's name"),
    ],
)
def test_a_mistake_is_one_line_that_names_its_place(load, old: str, new: str, line: int, says: str) -> None:
    assert old in FINAL
    with pytest.raises(RecipeError) as caught:
        load(FINAL.replace(old, new, 1))
    message = str(caught.value)
    assert "\n" not in message
    assert f"final.yaml:{line}: " in message
    assert says in message


WATERSHED, SMALL = "watershed: {min_distance_nm: 40}", "drop_small: {min_size_voxels: 50}"
THRESHOLD, WEIGHTS, THEIRS = "threshold: 0.46", "{mito_l: 3,", "{predictions:"


@pytest.mark.parametrize(
    ("old", "new", "values"),
    [
        (THRESHOLD, "threshold: {}", (1e-300, 0, -0.0, 1e-9, 1 - 2**-53, 1, 1 - 1e-9, 1e308)),
        (THRESHOLD, "weight: {}", (1e308, 1e7, -1e-300)),
        (WEIGHTS, "{{mito_l: {},", (1e308, 1e-300, 1e-9, 10**400, 0)),
        (THEIRS, "{{scale: {}, predictions:", (1e308, 1e-300, 1e20)),
        (WATERSHED, "watershed: {{min_distance_nm: {}}}", (1e300, 1e-300, 1e6)),
        (WATERSHED, "watershed: {{min_distance_voxels: {}}}", (10**400, 10**30, 2**41)),
        (SMALL, "drop_small: {{min_size_nm3: {}}}", (1e300, 1e25)),
        (SMALL, "drop_small: {{min_size_voxels: {}}}", (10**400, 2**63)),
        (SMALL, "keep_largest: {{count: {}}}", (10**400, 2**63)),
        ("{" + WATERSHED + "}, {" + SMALL + "}", "{{smooth: {{sigma_nm: {}}}}}", (1e300, 1e-300, 1e6)),
        ("{" + WATERSHED + "}, {" + SMALL + "}", "{{closing: {{radius_nm: {}}}}}", (1e300, 1e-300, 1e6)),
        ("{" + WATERSHED + "}, {" + SMALL + "}", "{{opening: {{radius_nm: {}}}}}", (1e300, 1e-300, 1e6)),
        ("{" + WATERSHED + "}, {" + SMALL + "}", "{{fill_holes: {{max_size_nm3: {}}}}}", (1e300, 1e25)),
        ("{" + WATERSHED + "}, {" + SMALL + "}", "{{hysteresis: {{high: {}}}}}", (1e-300, 1 - 2**-53)),
        ('">=16"', '">={}"', (10**400, 10**10)),
    ],
)
def test_a_number_beyond_all_sense_is_refused_where_it_stands(load, old: str, new: str, values: tuple) -> None:
    assert old in FINAL
    for value in (*values, "nan", ".nan", ".inf", "1e999", "-.inf"):
        text = value if isinstance(value, str) else repr(value)
        with pytest.raises(RecipeError, match=r"final\.yaml:\d+: (classes\.mito|sources\.theirs)"):
            load(FINAL.replace(old, new.format(text), 1))


@pytest.mark.parametrize("old", [f'{THEIRS} "{{root}}/', '{labels: "'])
@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("{crop:>2000000000}", "write {crop} alone"),
        ("{class!r:>9}", "write {class} alone"),
        ("{dataset!r}", "write {dataset} alone"),
        ("{crop.__class__}", "unknown placeholder"),
        ("{crop[0]}", "unknown placeholder"),
        ("{0}", "unknown placeholder"),
        ("{}", "unknown placeholder"),
        ("{crop", "not a template"),
        ("{crop:{class}}", "write {crop} alone"),
        *((f"{way}://x/", "nothing is read by") for way in ("github", "ssh", "sftp", "reference", "python", "memory")),
        *((f"{way}::s3://x/", "nothing is read by") for way in ("simplecache", "filecache", "zip", "tar")),
        ("s3://x::file:///etc/", "nothing is read by"),
    ],
)
def test_a_place_that_is_none_of_the_plain_ones_is_refused(load, old: str, prefix: str, says: str) -> None:
    assert old in FINAL
    with pytest.raises(RecipeError, match=r"final\.yaml:\d+: sources\.(theirs|old)") as refused:
        load(FINAL.replace(old, old + prefix, 1))
    assert says in str(refused.value)


@pytest.mark.parametrize("place", ["/a/{crop}", "a", "file:///a", "http://a/b", "https://a/b", "s3://a/b", "gs://a/b"])
def test_a_path_and_a_plain_url_are_places(load, place: str) -> None:
    recipe = load(FINAL.replace("{root}/predictions/{dataset}.zarr/{crop}/{class}", place, 1))
    assert recipe.sources["theirs"].template == place


def test_a_recipe_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'watershed\.yaml'"):
        recipe_file.load_recipe("watershd.yaml")


@pytest.mark.parametrize("name", ["baseline", "components", "watershed", "final", "demo"])
def test_shipped_recipes_route_every_scored_class_everywhere(name: str) -> None:
    shipped = recipe_file.load_recipe(f"{name}.yaml")
    for one in manifest.official_manifest():
        for scored in one.classes:
            assert shipped.route(scored, one).source is not None


GUIDE = {"nuc": (400, 512000), "mito": (20, 3200), "ves": (64, 10240), "ld": (80, 25600), "perox": (80, 25600),
         "endo": (80, 25600), "lyso": (80, 25600), "np": (40, 5120),
         "mt": (120, 51200), "cell": (800, 2560000)}  # fmt: skip
"""The guide's watershed distances and sizes: voxels of 8 nm (mito: 4 nm), in nm and nm3."""


def test_watershed_restates_the_guides_parameters() -> None:
    shipped = recipe_file.load_recipe("watershed.yaml")
    for name, (distance_nm, size_nm3) in GUIDE.items():
        steps = {s.method.name: s.parameters for s in shipped.route(name, target("557")).steps}
        assert steps["watershed"]["min_distance_nm"] == distance_nm
        assert steps["drop_small"]["min_size_nm3"] == size_nm3
    semantic = [n for n in target("557").classes if not taxonomy.is_instance(n)]
    assert not any(shipped.route(n, target("557")).of_stage(Stage.LABEL) for n in semantic)
