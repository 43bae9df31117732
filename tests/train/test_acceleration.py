"""Networks that are compiled or computed twice answer and learn as they did."""

import pytest
import torch

from ensemble.support.errors import TrainingError
from ensemble.train.acceleration import accelerate, is_compiled, recompute_blocks
from registry import networks
from registry.card import ARCHITECTURES, TOOLKIT
from tests.support.networks_small import EDGE, SMALL
from tests.support.small_crops import spec_of
from tests.support.small_training import run, weights
from tests.support.small_training import spec_of as small_spec

KEPT_AT_MOST = {"MedNeXtV1": 0.25, "MedNeXt": 0.25}
"""Of the bytes kept without."""


def pair(architecture: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Two networks of the same weights, in training."""
    one, other = (networks.build(architecture, SMALL[architecture]).train() for _ in range(2))
    other.load_state_dict(one.state_dict())
    return one, other


def step(network: torch.nn.Module, patches: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The loss whose gradients the network then has, and the bytes kept for them."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answers = network(patches)
        loss = sum(answer.square().mean() for answer in (answers if isinstance(answers, list | tuple) else [answers]))
    loss.backward()
    return loss, sum(kept.values())


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in TOOLKIT])
def test_blocks_computed_twice_give_the_same_gradients_in_less_memory(architecture):
    torch.manual_seed(1)
    plain, sparing = pair(architecture)
    assert recompute_blocks(sparing) > 0
    edge = EDGE.get(architecture, 16)
    patches = torch.rand(1, 1, edge, edge, edge)
    (expected, much), (loss, little) = step(plain, patches), step(sparing, patches)
    assert torch.allclose(loss, expected)
    gradients = zip(plain.named_parameters(), sparing.named_parameters(), strict=True)
    for (name, a), (same, b) in gradients:
        assert name == same
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.allclose(a.grad, b.grad, atol=1e-6, rtol=1e-4), name
    assert little < KEPT_AT_MOST.get(architecture, 0.75) * much


def test_in_evaluation_nothing_is_computed_twice():
    plain, sparing = pair("MedNeXtV1")
    recompute_blocks(sparing)
    patches = torch.rand(1, 1, 32, 32, 32)
    assert torch.equal(sparing.eval()(patches), plain.eval()(patches))


def test_blocks_with_batch_norm_are_not_computed_twice_and_a_network_of_such_is_refused():
    arguments = {**SMALL["UNet"], "norm": "batch"}
    assert recompute_blocks(networks.build("UNet", arguments)) < recompute_blocks(networks.build("UNet", SMALL["UNet"]))
    batch_norm = {"norm_op": "BatchNorm3d", "norm_op_kwargs": {}}
    network = networks.build("PlainConvUNet", {**SMALL["PlainConvUNet"], **batch_norm})
    with pytest.raises(
        TrainingError, match="checkpointing: this PlainConvUNet has no block that can be computed twice"
    ):
        accelerate(network, spec_of(architecture="PlainConvUNet", checkpointing=True))


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compiled_network_keeps_the_names_of_its_weights_and_answers_the_same(checkpointing, monkeypatch):
    # Its graphs are traced for the forward and the backward pass, and not made into C++, which takes minutes.
    compile_with = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **told: compile_with(self, backend="aot_eager", fullgraph=True, **told)
    )
    torch.manual_seed(1)
    plain, compiled = pair("MedNeXtV1")
    accelerate(compiled, spec_of(compile=True, checkpointing=checkpointing))
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    patches = torch.rand(1, 1, 32, 32, 32)
    (expected, _), (loss, _) = step(plain, patches), step(compiled, patches)
    assert torch.allclose(loss, expected)
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6, rtol=1e-4)


def test_without_a_gpu_nothing_is_compiled_unless_it_must_be():
    assert is_compiled(spec_of(compile=True))
    assert not is_compiled(spec_of(compile=False, steps=100_000))
    assert not is_compiled(spec_of(steps=4_000))
    if not torch.cuda.is_available():
        assert not is_compiled(spec_of(steps=100_000))


def test_training_with_a_compiled_network_in_little_memory_goes_on_from_one_without(tmp_path, data):
    """Neither is anything but a way to the same weights: the training that is there is finished already."""
    first = run(small_spec(tmp_path, ("steps: 60", "steps: 4")), data, tmp_path)
    other = small_spec(tmp_path, ("steps: 60", "steps: 4\ncompile: true\ncheckpointing: true"))
    assert run(other, data, tmp_path) == first
    (tmp_path / "another").mkdir()
    sparing = small_spec(tmp_path, ("steps: 60", "steps: 4\ncheckpointing: true"))
    again = run(sparing, data, tmp_path / "another")
    a, b = weights(tmp_path, first), weights(tmp_path / "another", again)
    assert all(torch.allclose(torch.tensor(a[n]), torch.tensor(b[n]), atol=1e-4) for n in a if n.endswith("weight"))
