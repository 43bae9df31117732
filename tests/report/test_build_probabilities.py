"""The probabilities a build was decided by, or a refusal where they are not those."""

from pathlib import Path

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.core.manifest import Target
from ensemble.plan.plan import CropPlan
from ensemble.plan.recipe import MixedSource, NamedSource
from ensemble.report.build_probabilities import BuildProbabilities, ClassProbability
from ensemble.report.finished_build import FinishedBuild
from ensemble.support.errors import EnsembleError
from ensemble.support.files import read_sealed, write_sealed
from ensemble.support.progress import QuietProgress
from tests.support.built import OUT
from tests.support.known_crop import GRID, Given, cloud, route
from tests.support.small_build import edit


def test_those_of_a_build_are_what_its_sources_predicted(built, store):
    build = FinishedBuild.of(OUT)
    probabilities = BuildProbabilities.open(build, store, QuietProgress())
    assert set(probabilities.plans) == set(probabilities.fields) == {"1", "2"}
    assert set(BuildProbabilities.open(build, store, QuietProgress(), crop="2").plans) == {"2"}
    mito = probabilities.of("1", "mito")
    box = Box((3, 2, 1), (9, 8, 7))
    fields = [mito.fields["mito", source] for source in ("fine", "coarse")]
    fine, coarse = (field.probability(build.grid("1").sub(box), "linear") for field in fields)
    assert np.allclose(mito.unfilled(box), 0.75 * fine + 0.25 * coarse, atol=1e-5)
    assert np.allclose(mito.spread(box), np.abs(fine - coarse), atol=1e-6)
    assert probabilities.of("1", "nuc").spread(box) is None
    assert probabilities.of("1", "pm") is None  # zeros on purpose
    assert probabilities.of("9", "mito") is None
    assert BuildProbabilities().of("1", "mito") is None


def test_a_recipe_that_says_something_else_by_now_is_refused(built, store):
    build = FinishedBuild.of(OUT)
    edit("small.yaml", "threshold: 0.5", "threshold: 0.6")
    request = read_sealed(OUT / "work" / "request.json")
    write_sealed(OUT / "work" / "request.json", {**request, "recipe": str(Path("small.yaml").resolve())})
    with pytest.raises(EnsembleError, match=r"have changed since the build \(crop 1\); build again"):
        BuildProbabilities.open(build, store, QuietProgress())


def test_members_of_a_mix_disagree_by_the_highest_minus_the_lowest():
    rng = np.random.default_rng(0)
    a, b = cloud(rng), cloud(rng)
    mixed = route(MixedSource("mean", ((NamedSource("a"), 1.0), (NamedSource("b"), 1.0))))
    plan = CropPlan(Target("1", "d", GRID, ("mito",)), {"mito": mixed}, ("mito",), ())
    fields: dict[tuple[str, str], Given] = {("mito", "a"): a, ("mito", "b"): b}
    box = Box((0, 1, 2), (5, 6, 7))
    spread = ClassProbability(plan, fields, "mito").spread(box)
    assert np.array_equal(spread, np.abs(a.values - b.values)[box.slices])
