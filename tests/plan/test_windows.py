"""Where patches lie: over all that is wanted, no more of them than the crop needs where context is scarce."""

from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st
from monai.data.utils import dense_patch_slices

from ensemble.core.box import Box
from ensemble.plan.recipe import ModelSource
from ensemble.plan.windows import Windowing, patches_along
from tests.support.inference import card

OVERLAPS = st.sampled_from([0, 0.1, 0.25, 0.5, 0.625, 0.9])
PATCHES = st.integers(2, 40)


@st.composite
def axes(draw) -> tuple[int, int, int, int, float]:
    """A crop along an axis, EM before and after it, a patch, and the overlap that is wanted."""
    return (
        draw(st.integers(1, 150)),
        draw(st.integers(0, 40)),
        draw(st.integers(0, 40)),
        draw(PATCHES),
        draw(OVERLAPS),
    )


def laid(crop: int, before: int, after: int, patch: int, overlap: float, *, context: bool = True, neighbours: int = 0):
    """Windows over a crop that begins at 100, in EM that reaches so far before and after it; the same on each axis."""
    there = Box((100 - before,) * 3, (100 + crop + after,) * 3)
    windowing = Windowing((patch,) * 3, overlap, context)
    box = Box.at((100,) * 3, (crop,) * 3)
    return windowing.over(box, (neighbours,) * 3, there.intersect(windowing.looked_at(box)))


def monais(length: int, patch: int, overlap: float) -> list[int]:
    """Where MONAI's sliding window puts patches along an axis."""
    step = patch if overlap == 0 else max(1, int(patch * (1 - overlap)))
    return [place[0].start for place in dense_patch_slices((length,), (patch,), (step,))]


@given(axes(), st.booleans(), st.integers(0, 1))
def test_patches_cover_their_region_and_the_core_lies_in_it(axis, context, neighbours) -> None:
    crop, before, after, patch, _ = axis
    found = laid(*axis, context=context, neighbours=neighbours)
    starts, (length, _, _) = found.starts[0], found.region.shape
    assert (starts[0], starts[-1]) == (0, length - patch)
    assert all(a < b <= a + patch for a, b in pairwise(starts))
    assert Box.at((100,) * 3, (crop,) * 3).within(found.core)
    assert found.core.within(found.region)
    kept = (100 - min(before, neighbours), 100 + crop + min(after, neighbours))
    assert (found.core.start[0], found.core.stop[0]) == kept
    if length > patch:
        assert found.region.start[0] >= 100 - before
        assert found.region.stop[0] <= 100 + crop + after


@given(axes(), st.integers(0, 1))
def test_neighbours_overlap_by_at_least_half_of_what_is_wanted(axis, neighbours) -> None:
    _, _, _, patch, overlap = axis
    starts = laid(*axis, neighbours=neighbours).starts[0]
    assert all(b - a <= max(1, patch * (1 - overlap / 2)) for a, b in pairwise(starts))


@given(axes())
def test_context_of_less_than_half_a_patch_costs_no_row(axis) -> None:
    crop, before, after, patch, overlap = axis
    assume(before + after < patch / 2)
    found = laid(*axis)
    assert len(found.starts[0]) == len(monais(max(crop, patch), patch, overlap))
    assert found.for_context == 0


@given(axes())
def test_where_there_is_more_all_that_is_wanted_is_shown(axis) -> None:
    crop, before, after, patch, overlap = axis
    wanted = Windowing((patch,) * 3, overlap, context=True).wanted(Box.at((100,) * 3, (crop,) * 3))
    start, stop = max(100 - before, wanted.start[0]), min(100 + crop + after, wanted.stop[0])
    assume(stop - start - crop >= patch / 2)
    region = laid(*axis).region
    assert region.start[0] <= start
    assert region.stop[0] >= stop


@given(axes(), st.integers(0, 1))
def test_there_are_never_more_than_steps_of_the_wanted_overlap_take(axis, neighbours) -> None:
    crop, before, after, patch, overlap = axis
    wanted = Windowing((patch,) * 3, overlap, context=True).wanted(Box.at((100,) * 3, (crop,) * 3))
    reach = min(100 + crop + after, wanted.stop[0]) - max(100 - before, wanted.start[0])
    count = len(laid(*axis, neighbours=neighbours).starts[0])
    assert len(monais(max(crop, patch), patch, overlap)) <= count <= len(monais(max(reach, patch), patch, overlap))


@given(st.integers(0, 110), st.integers(1, 40), st.integers(1, 40), PATCHES, OVERLAPS)
def test_context_is_cut_evenly(more, before, after, patch, overlap) -> None:
    crop = patch + more
    region = laid(crop, patch + before, patch + after, patch, overlap).region
    assert abs((100 - region.start[0]) - (region.stop[0] - 100 - crop)) <= 1


@given(axes())
def test_without_context_patches_lie_where_monai_puts_them(axis) -> None:
    crop, before, after, patch, overlap = axis
    found = laid(*axis, context=False)
    assert found.starts[0] == tuple(monais(max(crop, patch), patch, overlap))
    assert found.for_context == 0
    if crop >= patch:
        assert found.region == found.core
    elif crop + before + after >= patch:  # filled up with EM, not with mirrored voxels
        assert found.region.start[0] >= 100 - before
        assert found.region.stop[0] <= 100 + crop + after
    assert laid(crop, 0, 0, patch, overlap) == laid(crop, 0, 0, patch, overlap, context=False)


def test_a_crop_of_192_voxels_with_16_around_it_takes_27_patches() -> None:
    found = laid(192, 16, 16, 96, 0.5)
    assert found.starts == ((0, 64, 128),) * 3
    assert found.region == Box((84,) * 3, (308,) * 3)
    plenty = laid(192, 99, 99, 96, 0.5)
    assert plenty.starts == ((0, 48, 97, 146),) * 3
    assert plenty.for_context == 4**3 - 3**3


def test_patches_are_counted_by_lengths_alone() -> None:
    assert [patches_along(192, 192, 192 + around, 96, 0.5) for around in (0, 47, 48, 50, 96)] == [3, 3, 3, 4, 4]
    assert patches_along(96, 98, 98, 96, 0.5) == 2  # the voxels to interpolate towards do not fit into one


def test_a_recipe_may_say_otherwise_than_the_card() -> None:
    of = card(overlap=0.25, context=False)
    assert Windowing.of(ModelSource("models:/m@a"), of) == Windowing(of.patch_voxels, 0.25, context=False)
    other = ModelSource("models:/m@a", overlap=0.0, context=True)
    assert Windowing.of(other, of) == Windowing(of.patch_voxels, 0.0, context=True)
