"""A network on a batch of patches: turned, activated, its channels chosen."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from ensemble.core.manifest import Target
from ensemble.plan.network_use import NetworkUse
from ensemble.predict.runner import Runner, fix_arithmetic
from tests.support.inference import CLASSES, PATCH, Centre, a_volume, card, job, tiny_network
from tests.support.volumes import noise

ONE = NetworkUse("32", 1)


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("mirror", 8), ("octahedral", 48)])
def test_augmented_predictions_turn_back_to_where_they_were(tta: str, count: int) -> None:
    of = card(patch_voxels=16, activation="none")
    seen = []

    class Watching(Centre):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x[0, 0].clone())
            return super().forward(x)

    run = Runner(Watching(), of, (0,), tta, torch.device("cpu"), ONE)
    patch = torch.from_numpy(noise((16, 16, 16))) / 255
    assert torch.allclose(run(patch[None])[0, 0], patch, atol=1e-6)
    assert len(seen) == count
    assert len({one.numpy().tobytes() for one in seen}) == count


def test_softmax_leaves_out_channels_nobody_wants(tmp_path) -> None:
    of = card(classes=(None, "mito", "nuc"), activation="softmax")
    run = Runner(Centre(), of, (1,), "none", torch.device("cpu"), ONE)
    assert np.allclose(run(torch.rand(1, *PATCH)).numpy(), 1 / 3)


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("mirror", 8)])
def test_a_patch_is_timed_after_a_first_pass_and_all_its_augmentations_count(tta: str, count: int) -> None:
    seen = []

    class Counting(Centre):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.shape[0])
            return super().forward(x)

    run = Runner(Counting(), card(), (0,), tta, torch.device("cpu"), ONE)
    assert run.patch_s() > 0
    assert seen == [run.batch_size()] * count * 2


def whole(tmp_path):
    _, grid, em = a_volume(tmp_path, (32, 48, 64))
    return job(tmp_path, Target("1", "d", grid, CLASSES), em, card())


@pytest.mark.parametrize(
    ("arithmetic", "dtype", "most"), [("bf16", torch.bfloat16, 0.03), ("16", torch.float16, 0.005)]
)
def test_a_whole_network_computes_in_half_as_many_bits(tmp_path, arithmetic, dtype, most: float) -> None:
    one, patches = whole(tmp_path), torch.rand(2, *PATCH)
    plain = Runner.of(tiny_network(), one, torch.device("cpu"), ONE)
    half = Runner.of(tiny_network(), one, torch.device("cpu"), NetworkUse(arithmetic, 1))
    assert {p.dtype for p in half.network.parameters()} == {dtype}
    assert half(patches).dtype == torch.float32
    apart = (half(patches) - plain(patches)).abs().max()
    assert 0 < apart < most


@pytest.mark.parametrize("has_graphs", [False, True])
def test_a_compiled_network_is_one_graph_for_any_number_of_patches(tmp_path, has_graphs: bool) -> None:
    one, patches, graphs = whole(tmp_path), torch.rand(10, *PATCH), []

    def traced(graph: torch.fx.GraphModule, _: list[torch.Tensor], mode: str = "") -> torch.fx.GraphModule:
        assert has_graphs == (mode == "reduce-overhead")
        graphs.append(graph)
        return graph

    plain = Runner.of(tiny_network(), one, torch.device("cpu"), ONE)
    network = tiny_network()
    network.compile = partial(network.compile, backend=traced)  # traced as any other, and no compiler waited for
    use = NetworkUse("32", 4, is_compiled=True, has_graphs=has_graphs)
    compiled = Runner.of(network, replace(one, tta="mirror"), torch.device("cpu"), use)
    assert compiled.fault() is None
    for part in (patches[:2], patches[2:5], patches[5:9]):
        answers = compiled(part)
        assert (answers - replace(plain, tta="mirror")(part)).abs().max() < 1e-5
    assert len(graphs) == 1


def test_an_answer_stays_when_a_graph_writes_the_next_over_its_memory() -> None:
    class Replayed(Centre):
        """Answers in one piece of memory, as a CUDA graph does."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.answer = getattr(self, "answer", torch.empty_like(x))
            return self.answer.copy_(x)

    run = Runner(Replayed(), card(patch_voxels=16, activation="none"), (0,), "none", torch.device("cpu"), ONE)
    run = replace(run, use=replace(ONE, has_graphs=True))
    ones = run(torch.ones(1, 16, 16, 16))
    run(torch.zeros(1, 16, 16, 16))
    assert (ones == 1).all()


def test_what_cannot_be_compiled_is_told(tmp_path) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no compiler\nand much more")

    network = tiny_network()
    network.compile = partial(network.compile, backend=fails)
    run = Runner.of(network, whole(tmp_path), torch.device("cpu"), NetworkUse("32", 1, is_compiled=True))
    assert "no compiler" in run.fault() and "\n" not in run.fault()


def test_running_statistics_stay_what_they_were(tmp_path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 3, 1), torch.nn.BatchNorm3d(3)).eval()
    network[1].running_var.fill_(70_000.0)
    run = Runner.of(network, whole(tmp_path), torch.device("cpu"), NetworkUse("16", 1))
    assert run.network[1].running_var.tolist() == [70_000.0] * 3
    assert run(torch.rand(1, *PATCH)).isfinite().all()


def test_only_tf32_rounds_the_factors_of_products() -> None:
    for arithmetic, rounds in (("tf32", True), ("bf16", False), ("32", False)):
        fix_arithmetic(arithmetic)
        assert torch.backends.cudnn.allow_tf32 is rounds
        assert torch.backends.cuda.matmul.allow_tf32 is False
