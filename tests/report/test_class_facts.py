"""What a report says of one class over all its crops."""

from dataclasses import replace

from ensemble.report.class_facts import MostObjects, facts_of_class
from ensemble.report.finished_build import FinishedBuild
from ensemble.submission.check_report import ArrayContents
from tests.support.built import OUT


def counted(voxels: int, objects: int, needed: int, sizes: dict[str, int]) -> ArrayContents:
    return ArrayContents("<u2", voxels, objects, objects, needed, 1, sizes)


def test_counts_add_up_over_crops_and_sizes_are_in_nm3(built):
    build = FinishedBuild.of(OUT)
    contents = {
        "crop1": {"mito": counted(63, 3, 1, {"4": 2, "5": 1})},
        "crop2": {"mito": counted(8, 900, 101, {"3": 1})},
    }
    facts = facts_of_class(build, "mito", contents, "http://registry/")
    assert facts.instance
    assert facts.share == 71 / (70 * 18 * 20 + 8 * 6 * 7)
    assert (facts.nonzero_voxels, facts.objects, facts.at_border, facts.truth_objects) == (71, 903, 2, None)
    assert facts.most_objects == MostObjects("crop2", 900, 101)
    assert facts.too_many == ("crop2",)
    assert facts.sizes_log2_nm3 == {"10": 2, "11": 1, "15": 1}  # voxels of 4^3 = 2^6 and 16^3 = 2^12 nm3
    assert facts.training_sizes_log2_nm3 == {"12": 3, "15": 1}
    (route,) = facts.routes
    assert route.crops == ("crop1", "crop2")
    assert {name: model.link for name, model in route.models.items()} == {
        "fine": "http://registry/#/models/fine/versions/1",
        "coarse": "http://registry/#/models/coarse/versions/1",
    }


def test_crops_that_make_a_class_differently_have_routes_of_their_own(built):
    build = FinishedBuild.of(OUT)
    crop = build.plan.crops["2"]
    other = replace(crop, classes={**crop.classes, "nuc": replace(crop.classes["nuc"], threshold=0.75)})
    changed = replace(build, plan=replace(build.plan, crops={**build.plan.crops, "2": other}))
    facts = facts_of_class(changed, "nuc", {}, "sqlite:///mlflow.db")
    assert [(route.threshold, route.crops) for route in facts.routes] == [(0.5, ("crop1",)), (0.75, ("crop2",))]
    assert facts.routes[0].models["coarse"].link is None
    assert (facts.nonzero_voxels, facts.most_objects, facts.too_many) == (0, None, ())
