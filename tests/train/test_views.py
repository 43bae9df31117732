"""Which views of a patch are drawn."""

import numpy as np

from ensemble.train.views import View, draw_view
from tests.support.small_crops import spec_of


def drawn(**changed) -> list[View]:
    return [draw_view(spec_of(**changed), np.random.default_rng(seed)) for seed in range(100)]


def test_without_augmentation_a_patch_is_shown_as_it_is():
    assert set(drawn(augment=[])) == {View()}


def test_every_mirroring_swap_and_turn_is_drawn():
    assert len({view.flips for view in drawn(augment=["mirror"])}) == 8
    assert len({view.swaps for view in drawn(augment=["transpose"])}) == 8
    turned = {(view.plane, view.turns) for view in drawn(augment=["rotate"])}
    assert turned == {(plane, turns) for plane in ((-3, -2), (-3, -1), (-2, -1)) for turns in range(4)}


def test_axes_of_other_voxels_or_of_another_length_are_never_turned_into_one_another():
    steps = ["transpose", "rotate"]
    for spec in ({"voxel_size_nm": [30, 8, 8]}, {"patch_voxels": [8, 4, 4]}):
        views = drawn(**spec, augment=steps)
        assert {swap for view in views for swap in view.swaps} == {(-2, -1)}
        assert {view.plane for view in views} == {(-2, -1)}
    assert set(drawn(patch_voxels=[8, 6, 4], augment=steps)) == {View()}


def test_exposures_differ_from_patch_to_patch_within_bounds():
    exposures = [view.exposure for view in drawn(augment=["intensity"])]
    assert len(set(exposures)) == 100
    for values, low, high in zip(
        list(zip(*exposures, strict=True))[:3], (0.75, -0.3, 0), (1.3, 0.3, 0.15), strict=True
    ):
        assert low <= min(values) < low + 0.1
        assert high - 0.1 < max(values) <= high
