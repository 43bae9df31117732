"""A model that meets EM of another type than it learned from is told in the plan and refused by a build."""

from pathlib import Path

import pytest

from ensemble.cli import main
from ensemble.core.grid import Grid
from ensemble.plan.em_likeness import refuse_unlike, unlike_em, unlike_range
from ensemble.plan.request import Request, prepare
from registry.store import Registry
from tests.support.small_build import BUILD, RECIPE, edit, run, wrong
from tests.support.volumes import noise, write_em

GRID = Grid((40, 48, 56), (8, 8, 8), (4, 4, 4))


def plan_on(dtype: str):
    write_em(Path("data"), "d", [(noise(GRID.shape).astype(dtype), GRID)])
    prepared = prepare(Request("small.yaml", Path("build/small"), Path("manifest.csv")), Registry())
    return prepared.plan, prepared.em


@pytest.mark.parametrize(
    ("dtype", "said", "normalisation", "fits"),
    [
        ("uint8", None, {}, True),
        ("int16", None, {}, False),
        ("int8", None, {}, False),
        ("float32", None, {"subtract": 128.0, "divide": 40.0}, False),
        ("uint16", None, {"divide": 65535.0}, True),
        ("uint8", None, {"divide": 65535.0}, False),
        ("int16", None, {"subtract": "mean", "divide": "std"}, True),
        (">i2", "int16", {}, True),
        ("uint8", "int16", {}, False),
        ("float32", "float32", {"divide": 1.0}, True),
    ],
)
def test_the_type_that_the_card_says_or_its_normalisation_is_for(place, dtype, said, normalisation, fits) -> None:
    plan, em = plan_on(dtype)
    for job in plan.jobs:
        card = job.model.card
        given = card.normalisation.model_copy(update=normalisation)
        object.__setattr__(job.model, "card", card.model_copy(update={"em_dtype": said, "normalisation": given}))
    assert (unlike_em(plan, em) == ()) == fits


def test_each_source_is_told_once_and_refused_unless_the_recipe_wants_it(place, capsys) -> None:
    plan, em = plan_on("int16")
    fine, coarse = unlike_em(plan, em)
    assert fine.line == (
        "small.yaml:3: sources.fine: the EM of d is int16, but the card of fine says no em_dtype and its normalisation"
        " is that of uint8"
    )
    line = wrong(capsys, *BUILD)
    assert fine.line in line
    assert line.endswith(
        "(and 1 more); convert the EM, correct em_dtype or em_range in the model's card, or say `em: any` in the source"
    )
    assert main(["plan", *BUILD[1:4]]) == 0
    assert f"warning: {coarse.line}; convert the EM" in capsys.readouterr().out
    Path("small.yaml").write_text(RECIPE.replace('@champion"}', '@champion", em: any}'))
    assert run() == 0
    assert fine.line in capsys.readouterr().err


def test_only_a_model_has_learned_from_em(place, capsys) -> None:
    edit("small.yaml", '{class}"}', '{class}", em: any}')
    assert "sources.theirs.em: only a model has learned from EM" in wrong(capsys, *BUILD)


def test_nothing_unlike_is_nothing_to_refuse() -> None:
    assert refuse_unlike(()) is None


@pytest.mark.parametrize(
    ("seen", "known", "normalisation", "fits"),
    [
        ((0, 255), None, {}, True),
        ((90, 160), None, {}, True),
        ((7, 7), None, {}, True),  # one value says nothing
        ((0, 1), None, {}, False),
        ((0, 4095), None, {}, False),
        ((0, 4095), None, {"divide": 65535.0}, True),
        ((0, 255), None, {"divide": 65535.0}, False),
        ((0, 65535), (0, 4000), {"divide": 65535.0}, False),
        ((-3000, 900), (-2000, 1000), {"divide": 1000.0}, True),
        ((-3600, 900), (-2000, 1000), {"divide": 1000.0}, False),
        ((0, 60000), (0, 255), {"subtract": "mean", "divide": "std"}, True),
        ((0, 60000), None, {"subtract": 120.0, "divide": 40.0}, True),  # nothing tells what it learned from
        ((float("nan"), float("nan")), None, {}, False),
    ],
)
def test_grey_values_on_another_scale_than_the_trainings(place, seen, known, normalisation, fits) -> None:
    plan, _ = plan_on("uint8")
    job = plan.jobs[0]
    given = job.model.card.normalisation.model_copy(update=normalisation)
    object.__setattr__(job.model, "card", job.model.card.model_copy(update={"em_range": known, "normalisation": given}))
    found = unlike_range(plan, job, seen)
    assert (found is None) == fits
    if found is not None:
        low, high = seen
        assert found.line.startswith(f"small.yaml:3: sources.fine: the EM of d goes from {low:g} to {high:g}, but fine")


def test_em_of_another_range_is_told_by_a_plan_and_refused_by_a_build(place, capsys) -> None:
    write_em(Path("data"), "d", [(noise(GRID.shape) // 200, GRID)])  # 0 and 1
    assert main(["plan", *BUILD[1:4]]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "the EM of d goes from 0 to 1, but fine learned from 0 to 255; convert the EM" in told
    assert wrong(capsys, *BUILD).startswith(
        "ensemble: small.yaml:3: sources.fine: the EM of d goes from 0 to 1, but fine"
    )
    Path("small.yaml").write_text(RECIPE.replace('@champion"}', '@champion", em: any}'))
    assert run() == 0
    assert "the EM of d goes from 0 to 1, but fine learned from 0 to 255" in " ".join(capsys.readouterr().err.split())
