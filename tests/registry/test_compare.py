"""Two registered models side by side."""

import math

import torch

from registry import checkpoint
from registry.compare import compare_models


def test_two_versions_differ_in_what_their_cards_and_weights_say(both_versions):
    first, second = both_versions.versions("m")
    found = compare_models(both_versions, first, second)
    assert set(found.differences) == {"normalisation"}
    assert found.scores == {"mito": (0.8, 0.7)}
    a, b = (checkpoint.read(both_versions.weights(version)).values for version in (first, second))
    flat = [torch.cat([side[key].double().ravel() for key in a if a[key].is_floating_point()]) for side in (a, b)]
    assert math.isclose(found.apart, float((flat[0] - flat[1]).norm() / flat[0].norm()), rel_tol=1e-9)


def test_a_version_is_nothing_apart_from_itself(both_versions):
    (version, _) = both_versions.versions("m")
    found = compare_models(both_versions, version, version)
    assert (found.differences, found.apart) == ({}, 0)
