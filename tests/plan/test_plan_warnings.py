"""What the plan says of a recipe that does less than it seems to, of odd cards, and of EM that is not there."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.plan import make_plan
from ensemble.plan.plan_warnings import check_datasets, plan_warnings
from ensemble.storage.em_pyramids import EM
from ensemble.support.errors import RecipeError
from tests.support.inference import Known, card
from tests.support.volumes import noise, write_em

GRID = Grid((32, 32, 32), (8, 8, 8), (4, 4, 4))
FINE = Target("900", "tiny", GRID, ("mito", "nuc"))
COARSE = Target("901", "other", Grid((16, 16, 16), (16, 16, 16), (8, 8, 8)), ("nuc",))
RECIPE = """\
name: r
sources: {{m: {{model: 'models:/tiny@a'}}}}
defaults: {{source: m}}
classes:
  mito: {{threshold: 0.4, when: [{when}]}}
"""


def recipe(tmp_path: Path, text: str):
    (tmp_path / "r.yaml").write_text(text)
    return recipe_file.load_recipe(tmp_path / "r.yaml")


def warned(tmp_path: Path, text: str, chosen=(FINE,), manifest=(FINE, COARSE), **changes) -> list[str]:
    """Warnings by their words, places being told to the line."""
    write_em(tmp_path, "tiny", [(noise(GRID.shape), GRID)])
    models = {"m": Known(card(patch_voxels=16, **changes))}
    em = EM(tmp_path)
    plan = make_plan(recipe(tmp_path, text), chosen, models, em)
    return [line.removeprefix(f"{tmp_path}/") for line in plan_warnings(plan, manifest, em)]


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("{crop: '90', source: empty}", "it never holds"),
        ("{dataset: '*zebra*', source: empty}", "it never holds"),
        ("{voxel_size_nm: '>=32', source: empty}", "it never holds"),
        ("{crop: '901', source: empty}", "where it holds, mito is not scored"),
    ],
)
def test_a_condition_that_no_crop_meets_is_told_by_its_line(tmp_path, when, says):
    (line,) = warned(tmp_path, RECIPE.format(when=when))
    assert re.match(r"r.yaml:5: classes.mito.when\[0\].*: no crop of the manifest takes this for mito: ", line)
    assert line.endswith(says)


def test_a_condition_behind_one_that_always_holds_first_is_told(tmp_path):
    text = RECIPE.format(when="{crop: '9*', threshold: 0.3}, {crop: '900', threshold: 0.2}")
    (line,) = warned(tmp_path, text)
    assert "when[1]" in line
    assert line.endswith("an entry before it holds first")


def test_conditions_and_sources_that_other_crops_of_the_manifest_need_are_no_matter(tmp_path):
    text = RECIPE.format(when="").replace("'models:/tiny@a'}", "'models:/tiny@a'}, k: {labels: 'x/{class}'}")
    text = text.replace("mito: {threshold: 0.4, when: []}", "nuc: {when: [{dataset: other, source: k}]}")
    assert warned(tmp_path, text) == []
    assert warned(tmp_path, text, manifest=(FINE,)) == [
        "r.yaml:5: classes.nuc.when[0]: no crop of the manifest takes this for nuc: it never holds",
        "r.yaml:2: sources.k: nothing uses the source k",
    ]


def test_classes_that_no_crop_is_scored_on_are_told_in_one_line(tmp_path):
    text = RECIPE.format(when="") + "".join(f"  {name}: {{threshold: 0.6}}\n" for name in ("ld", "er", "pm"))
    assert warned(tmp_path, text + "empty: [ves]\n") == ["r.yaml: no crop of the manifest is scored on er, ld, pm"]


@pytest.mark.parametrize(("nm", "said"), [(0.008, "0.008x0.008x0.008"), (8000, "8000x8000x8000")])
def test_voxels_that_nobodys_microscope_has_are_asked_about(tmp_path, nm, said):
    text = RECIPE.format(when="")
    write_em(tmp_path, "tiny", [(noise(GRID.shape), GRID)])
    plan = make_plan(recipe(tmp_path, text), [FINE], {"m": Known(card(patch_voxels=16))}, EM(tmp_path))
    odd = replace(plan, models={"m": Known(card(patch_voxels=16, voxel_size_nm=nm))}, crops=())
    lines = plan_warnings(odd, (FINE, COARSE), EM(tmp_path))
    assert [line.partition(": ")[2] for line in lines] == [f"its card says voxels of {said} nm; is that its unit?"]


def test_a_crop_that_lies_mostly_beyond_the_em_is_told_with_its_share(tmp_path):
    beyond = Target("900", "tiny", replace(GRID, origin_nm=(4 + 24 * 8, 4, 4)), ("mito", "nuc"))
    lines = warned(tmp_path, RECIPE.format(when=""), chosen=(beyond,))
    assert lines == [
        "crop 900: only 25.0% of the crop lies in the EM that is there; is its translation right?",
        "crop 900: the EM that is there ends 24 voxels inside the crop along z; it is mirrored there",
    ]


@pytest.mark.parametrize(("dataset", "wrong"), [("tinny", True), ("ti*y", False), ("jrc_hela-2", False)])
def test_a_misspelt_data_set_is_an_error(tmp_path, dataset, wrong):
    """One that is like none may be of another manifest: that is a warning."""
    found = recipe(tmp_path, RECIPE.format(when=f"{{dataset: '{dataset}', source: empty}}"))
    if not wrong:
        check_datasets(found, (FINE, COARSE))
        return
    with pytest.raises(RecipeError, match=r"r.yaml:5: classes.mito.when\[0\].*'tinny'; did you mean 'tiny'\?"):
        check_datasets(found, (FINE, COARSE))
