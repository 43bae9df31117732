"""Weights fit key by key or not at all, and are kept and loaded bit for bit."""

import pytest
import torch
from safetensors.torch import load_file

from registry import checkpoint, networks, weights
from registry.card import ARCHITECTURES
from registry.checksums import sha256
from tests.support.networks_small import DYNUNET, SMALL, card, misfit, refusal, same, unet


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_weights_of_every_architecture_survive_saving(tmp_path, architecture):
    network = networks.build(architecture, SMALL[architecture])
    state = network.state_dict()
    weights.save_weights(state, tmp_path / "w.safetensors")
    blank = networks.blank(architecture, SMALL[architecture])
    again = weights.fit(checkpoint.read(tmp_path / "w.safetensors"), blank)
    assert same(again, state)


def test_missing_unexpected_and_misshaped_keys_are_all_listed_in_one_line(saved):
    state = unet().state_dict()
    dropped, reshaped, *_ = state
    del state[dropped]
    state[reshaped] = torch.zeros(7)
    state |= {f"stranger{i}": torch.zeros(1) for i in range(8)}
    message = misfit(saved(state))
    assert f"1 missing ({dropped})" in message
    assert "8 unexpected (stranger0, stranger1, stranger2, stranger3, stranger4 and 3 more)" in message
    assert f"1 of another shape or type ({reshaped}: [7] where the network has [4])" in message


def test_in_a_plain_state_dict_nothing_beside_the_network_is_ignored(saved):
    state = {f"net.{key}": value for key, value in unet().state_dict().items()}
    message = refusal(weights.fit, checkpoint.read(saved({**state, "loss.weight": torch.ones(1)})), unet())
    assert "1 unexpected (loss.weight)" in message


def test_two_different_networks_in_one_checkpoint_are_not_guessed_between(saved):
    def holding(*seeds):
        nested = {
            f"{name}.{key}": value
            for name, seed in zip(("net", "ema"), seeds, strict=True)
            for key, value in unet(seed).state_dict().items()
        }
        return saved({"pytorch-lightning_version": "2.6", "state_dict": nested})

    message = refusal(weights.fit, checkpoint.read(holding(0, 1)), unet())
    assert "under 'ema.', 'net.'" in message
    assert same(weights.fit(checkpoint.read(holding(1, 1)), unet()), unet(1).state_dict())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(saved, bad):
    state = unet().state_dict()
    key = next(iter(state))
    state[key].view(-1)[0] = bad
    assert f"NaN or infinity in 1 of 8 tensors ({key})" in misfit(saved(state))


@pytest.mark.parametrize(
    "value",
    [torch.zeros(4, 1, 3, 3, 3, dtype=torch.int64), torch.zeros(4, 1, 3, 3, 3, device="meta"), 3.0, None],
    ids=["integers", "no data", "number", "null"],
)
def test_values_that_are_no_weights_are_refused(saved, value):
    state = unet().state_dict()
    key = next(k for k, v in state.items() if v.shape == (4, 1, 3, 3, 3))
    message = refusal(weights.fit, checkpoint.read(saved({**state, key: value})), unet())
    assert f"1 of another shape or type ({key}: " in message


def test_a_tensor_with_two_names_must_agree_with_itself(saved):
    network = networks.build("DynUNet", DYNUNET)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    assert same(weights.fit(checkpoint.read(saved(state)), network), network.state_dict())
    twin = next(key for key in state if key.startswith("skip_layers"))
    state[twin] += 1
    assert "are one tensor in the network but differ" in misfit(saved(state), network)


def test_a_small_file_cannot_ask_for_a_large_tensor(saved):
    state = unet().state_dict()
    assert "1 unexpected (huge)" in misfit(saved({**state, "huge": torch.zeros(1).expand(2**40)}))
    key = next(k for k, v in state.items() if v.shape == (4, 1, 3, 3, 3))
    repeated = {**state, key: torch.zeros(1).expand(4, 1, 3, 3, 3)}
    assert f"({key}: 108 values of which the file holds 4 bytes)" in misfit(saved(repeated))


def test_equal_weights_give_equal_bytes(tmp_path):
    state = unet().state_dict()
    weights.save_weights(state, tmp_path / "a")
    weights.save_weights(dict(reversed(state.items())), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    assert same(load_file(tmp_path / "a"), state)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "no").write_text("a file where a folder is expected")
    assert "cannot write the weights" in refusal(weights.save_weights, unet().state_dict(), tmp_path / "no" / "w")
    assert [path.name for path in tmp_path.iterdir()] == ["no"]


def test_a_loaded_network_runs_and_asks_for_no_gradients(tmp_path):
    original = unet(seed=5).eval()
    weights.save_weights(original.state_dict(), tmp_path / "w")
    known = card(sha256=sha256(tmp_path / "w"))
    network = weights.load_network(known, tmp_path / "w")
    patch = torch.rand(1, 1, 8, 8, 8)
    assert torch.equal(network(patch), original(patch))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_flipped_bit_is_found_at_load(tmp_path):
    weights.save_weights(unet().state_dict(), tmp_path / "w")
    known = card(sha256=sha256(tmp_path / "w"))
    content = bytearray((tmp_path / "w").read_bytes())
    content[-100] ^= 1
    (tmp_path / "w").write_bytes(content)
    assert "damaged or exchanged" in refusal(weights.load_network, known, tmp_path / "w")
