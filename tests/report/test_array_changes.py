"""Changes of arrays add up to those of their classes."""

from pathlib import Path

from ensemble.core.box import Box
from ensemble.report.array_changes import ArrayChange, Difference


def test_a_change_is_any_voxel_that_differs_or_moved():
    assert not ArrayChange("crop1/ecs", both=5).any
    assert ArrayChange("crop1/mito", both=5, moved=2).any
    assert ArrayChange("crop1/ecs", only_a=2, only_b=3).changed == 5


def test_classes_are_summed_over_crops_largest_first_and_what_nobody_counted_stays_unknown():
    changes = (
        ArrayChange("crop1/ecs", 10, 1, 2, 0, None, 4, None, Box.of_shape((1, 1, 1))),
        ArrayChange("crop1/mito", 10, 30, 0, 5, 3, 4, 2, None, {1: 2}),
        ArrayChange("crop2/ecs", 20, 3, 4, 0, 6, 7, None),
        ArrayChange("crop2/mito", 5, 0, 1, 6, 2, 2, 1),
        ArrayChange("crop2/nuc", 5, 0, 0, 9, 1, 1, 0),
    )
    by_class = Difference(Path("a"), Path("b"), changes, (), {}, {}).by_class()
    assert list(by_class) == ["mito", "ecs", "nuc"]
    assert by_class["mito"] == ArrayChange("mito", 15, 30, 1, 11, 5, 6, 3)
    assert by_class["ecs"] == ArrayChange("ecs", 30, 4, 6, 0, None, 11, None)
