"""Hyper-parameters that OmegaConf holds are read as the plain values they stand for."""

from pathlib import Path

import pytest

from registry import checkpoint, draft
from registry.inert_pickle import Unread
from registry.omegaconf_values import MAX_VALUES, plain_values

WRITTEN = Path(__file__).with_name("omegaconf.ckpt")
"""As torch.save wrote it, with OmegaConf 2.3, at the protocol that Lightning uses."""


def test_a_configuration_is_read_as_what_it_says():
    assert checkpoint.read(WRITTEN).settings == {
        "model": {"channels": [4, 8], "strides": [2], "norm": "batch"},  # spatial_dims was left open
        "data": {"classes": ["mito", "er"], "patch_size": [32, 32, 32], "voxel_size": 8},
        "copy": "${model.channels}",
    }


def test_a_draft_takes_what_mappings_in_it_say():
    values = draft.draft_card(WRITTEN).values
    assert (values["classes"], values["patch_voxels"], values["voxel_size_nm"]) == (["mito", "er"], [32, 32, 32], 8)


def node(kind: str, **attributes) -> Unread:
    made = Unread(f"omegaconf.{kind}")
    made.update(attributes)
    return made


def test_what_is_no_node_stays_as_it_is():
    other = Unread("torch.nn.Module")
    settings = {"a": other, "b": (1, other), "c": [other], "d": node("nodes.AnyNode", _val=3)}
    assert plain_values(settings) == {"a": other, "b": (1, other), "c": [other], "d": 3}


@pytest.mark.parametrize("content", ["itself", "wide", "deep"])
def test_what_has_no_end_is_left_alone(content):
    settings: dict = {"a": node("listconfig.ListConfig")}
    settings["a"]["_content"] = {
        "itself": settings["a"],
        "wide": [1] * MAX_VALUES,
        "deep": node("dictconfig.DictConfig", _content={"b": settings["a"]}),
    }[content]
    assert plain_values(settings) is settings
