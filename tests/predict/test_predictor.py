"""A plan's networks are run once over the crops that need them."""

import numpy as np
import pytest

from ensemble.plan.request import Request, prepare
from ensemble.predict.predictor import Predictor
from ensemble.support.errors import EnsembleError
from ensemble.support.progress import QuietProgress
from registry.store import Registry
from tests.support.built import OUT


def predicting() -> tuple[Predictor, tuple]:
    request = Request.again(OUT)
    prepared = prepare(request, Registry())
    return Predictor.of(request, prepared, Registry(), QuietProgress()), prepared.plan.crops


def test_what_a_build_predicted_is_found_and_not_predicted_again(built) -> None:
    again, crops = predicting()
    again.run()
    assert (again.kept, again.passes) == (4, 0)  # two models on two crops
    for crop in crops:
        fields = again.fields(crop)
        assert set(fields) == {
            *(("mito", "fine"), ("mito", "coarse"), ("mito_mem", "fine"), ("mito_lum", "fine")),
            *(("nuc", "coarse"), ("ecs", "theirs")),
        }
        for field in fields.values():
            p = field.probability(crop.target.grid, "linear")
            assert p.shape == crop.target.grid.shape
            assert 0 <= p.min() < p.max() <= 1


def test_what_is_not_there_any_more_is_told_and_only_that_is_predicted(built) -> None:
    before, crops = predicting()
    mito = before.fields(crops[0])["mito", "fine"].probability(crops[0].target.grid, "linear")
    kept = before.stored(crops[0].jobs[0])
    kept.forget()
    with pytest.raises(EnsembleError, match="what fine predicted of crop 1 is not there any more; build again"):
        before.fields(crops[0])
    again, crops = predicting()
    again.run()
    assert (again.kept, again.passes) == (3, crops[0].jobs[0].forward_passes)
    assert np.array_equal(again.fields(crops[0])["mito", "fine"].probability(crops[0].target.grid, "linear"), mito)
