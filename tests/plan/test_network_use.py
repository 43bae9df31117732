"""How a network runs, in plain values, in words, and what of it decides its last bits."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.core.manifest import Target
from ensemble.plan.job import patches_per_pass
from ensemble.plan.network_use import Deviation, NetworkUse, plain_use
from tests.support.inference import CLASSES, a_volume, card, job

DEVIATIONS = st.builds(Deviation, *[st.floats(0, 1)] * 3)
USES = st.builds(
    NetworkUse,
    st.sampled_from(["32", "tf32", "16", "bf16"]),
    st.integers(1, 64),
    st.booleans(),
    st.text("abc ", max_size=9),
    st.none() | DEVIATIONS,
    st.none() | DEVIATIONS,
    st.sampled_from(["", "cpu", "cuda"]),
    st.booleans(),
)


@given(USES)
def test_plain_values_come_back(use: NetworkUse) -> None:
    assert NetworkUse.from_plain(use.as_plain()) == use


@pytest.mark.parametrize(
    "value", [None, 3, [], {}, {"arithmetic": "64", "patches": 1}, {"arithmetic": "32", "patches": 0}, {"patches": 2}]
)
def test_what_is_none_is_nothing(value: object) -> None:
    assert NetworkUse.from_plain(value) is None


def test_words_tell_what_was_measured() -> None:
    small = Deviation(0.0123, 0.0042, 0.00031)
    use = NetworkUse("bf16", 8, True, "times as fast as float32: bf16 2.10", small, Deviation(0.2, 0.1, 0.05))
    assert use.in_words == (
        "bfloat16; 8 patches a pass; compiled; times as fast as float32: bf16 2.10; "
        "its golden input: at most 0.012, 99.9 % within 0.0042, 0.03% cross 0.5; "
        "its patch of the EM: at most 0.2, 99.9 % within 0.1, 5.00% cross 0.5"
    )
    assert NetworkUse("32", 1).in_words == "float32; 1 patch a pass"
    replayed = NetworkUse("32", 1, is_compiled=True, has_graphs=True)
    assert replayed.in_words == "float32; 1 patch a pass; compiled, its kernels replayed as CUDA graphs"
    assert replayed.plain == NetworkUse("32", 1)
    assert small.is_small
    assert not Deviation(0.02, 0.02, 0.0).is_small
    assert not Deviation(0.02, 0.001, 0.002).is_small


@given(USES, USES)
def test_bits_are_decided_by_arithmetic_patches_and_compiling_alone(one: NetworkUse, other: NetworkUse) -> None:
    deciding = {name: getattr(one, name) for name in ("arithmetic", "patches", "is_compiled", "has_graphs")}
    assert replace(other, **deciding).decides == one.decides
    assert replace(one, has_graphs=not one.has_graphs).decides != one.decides


def test_only_cuda_and_what_is_asked_for_is_measured(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (30, 40, 50))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    for kind in ("cpu", "mps"):
        fixed = NetworkUse("32", patches_per_pass(one.patch, kind), device=kind)
        assert plain_use(one, "auto", kind) == plain_use(one, "32", kind) == fixed
        assert plain_use(one, "bf16", kind) is None
    assert plain_use(one, "auto", "cuda") is plain_use(one, "32", "cuda") is None
