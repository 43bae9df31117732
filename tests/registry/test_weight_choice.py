"""Among the weights in a checkpoint those that are meant are taken, and no choice is made in silence."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from registry import checkpoint, weights
from registry.weight_choice import WRAPPERS, choose, unwrapped
from tests.support.networks_small import refusal, same, unet

RAW, EMA = unet(0).state_dict(), unet(1).state_dict()


def average(seed: int) -> dict:
    return AveragedModel(unet(seed)).state_dict()


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
@pytest.mark.parametrize("place", ["", "model.0.", "model.2."])
def test_wrappers_anywhere_in_names_change_nothing(saved, wrapper, place):
    state = {key.replace(place, f"{place}{wrapper}.", 1) if place in key else key: v for key, v in RAW.items()}
    path = saved({"state_dict": {f"net.{key}": value for key, value in state.items()}})
    assert same(weights.fit(checkpoint.read(path), unet()), RAW)


def test_an_averaged_model_is_its_network(saved):
    assert same(weights.fit(checkpoint.read(saved(average(0))), unet()), RAW)


def test_names_that_would_become_one_stay_apart():
    values = {"module.a": 1, "a": 2}
    assert unwrapped(values) == values
    assert unwrapped({"module.a": 1}, frozenset({"module"})) == {"module.a": 1}


@pytest.mark.parametrize(
    ("key", "other"),
    [("ema_state_dict", EMA), ("ema", {"module": EMA}), ("current_model_state", {f"m.{k}": v for k, v in EMA.items()})]
    + [("averaged", average(1)), ("teacher", {k: v for k, v in EMA.items() if v.ndim != 0})],
)
def test_raw_and_averaged_weights_are_never_chosen_between_in_silence(saved, key, other):
    path = saved({"state_dict": RAW, "epoch": 3, key: other})
    name = "ema.module" if key == "ema" else key
    message = refusal(checkpoint.read, path)
    assert f"holds different weights under state_dict, {name}, such as the last and the averaged ones" in message
    assert message.endswith("choose with ensemble register --weights KEY")
    assert same(weights.fit(checkpoint.read(path, "state_dict"), unet()), RAW)
    assert same(weights.fit(checkpoint.read(path, name), unet()), EMA)
    assert "holds no weights under 'emma'" in refusal(checkpoint.read, path, "emma")


def test_both_in_one_mapping_are_told_apart_by_how_their_names_begin(saved):
    both = {f"net.{key}": value for key, value in RAW.items()} | {f"ema.{key}": v for key, v in average(1).items()}
    path = saved({"pytorch-lightning_version": "2.6", "state_dict": both})
    message = refusal(weights.fit, checkpoint.read(path), unet())
    assert "under 'ema.', 'net.'; choose one with ensemble register --weights PREFIX" in message
    for prefix, expected in (("net.", RAW), ("ema", EMA), ("ema.module.", EMA)):
        assert same(weights.fit(checkpoint.read(path, prefix), unet()), expected)


def test_equal_weights_need_no_choice_and_what_is_no_network_is_no_rival(saved):
    beside = {"ema": copy.deepcopy(RAW), "loss": {"weight": torch.ones(2)}, "optimizer": {"state": {0: {"m": RAW}}}}
    assert same(weights.fit(checkpoint.read(saved({"state_dict": RAW, **beside})), unet()), RAW)


def test_weights_under_an_unusual_key_are_found_where_they_are_alone(saved):
    assert same(weights.fit(checkpoint.read(saved({"net_G": RAW, "epoch": 1})), unet()), RAW)
    message = refusal(checkpoint.read, saved({"net_G": RAW, "net_D": {"w": torch.ones(2, 2)}}))
    assert "under net_G, net_D" in message


class Weights(OrderedDict):
    """A mapping of a type of one's own."""


def test_weights_in_a_mapping_of_any_type_are_weights(saved):
    for content in (Weights(RAW), {"state_dict": Weights(RAW)}):
        assert same(weights.fit(checkpoint.read(saved(content)), unet()), RAW)


def test_a_whole_network_is_told_as_that(saved):
    for content in (unet(), {"model": unet(), "epoch": 1}):
        message = refusal(checkpoint.read, saved(content))
        assert message.endswith("holds a whole monai.networks.nets.unet.UNet; save only its state_dict()")


def test_a_mapping_that_holds_itself_ends():
    content: dict = {"a": {}}
    content["a"]["b"] = content
    content["a"]["w"] = torch.ones(1)
    assert choose("c.pt", content, None) is content["a"]
