"""How each network of a plan runs: as the lock says, as it was measured on this device before, or measured now."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ensemble.core import Box, zyx
from ensemble.engine import Engine, Task, alone, done
from ensemble.plan import (
    PASS_SHARE,
    Arithmetic,
    Deviation,
    Job,
    NetworkUse,
    Precision,
    Prepared,
    Request,
    patches_per_pass,
    plain_use,
)
from ensemble.predict.device import LENT, card_of, find_devices, kind_for
from ensemble.predict.tissues import tissue_of
from ensemble.storage import Tissue
from ensemble.support import EnsembleError, Progress, one_line
from registry import Registry

if TYPE_CHECKING:
    import torch

    from ensemble.predict.runner import Runner

GAIN = 1.1
"""How many times as fast as "32" another arithmetic must be to be chosen."""

COMPILED_GAIN = 1.05
"""How many times as fast a compiled network must be."""

GRAPHS_GAIN = 1.02
"""How many times as fast a compiled network must be whose kernels CUDA replays as graphs."""

MOST_PATCHES = 32
_ENOUGH = 1.02
"""More patches a pass that gain no more than this are not worth their memory."""

_TIMED_PASSES = 3


@dataclass(frozen=True)
class _Compiled:
    """What compiling gained: seconds it took, how many times as fast; ``failed`` says why there is nothing.

    ``graphs_gain``: how many times as fast as that with CUDA graphs; 0 where there are none.
    """

    took_s: float = 0.0
    gain: float = 0.0
    graphs_gain: float = 0.0
    failed: str = ""


def settled_uses(
    request: Request, prepared: Prepared, registry: Registry, progress: Progress, engine: Engine | None = None
) -> dict[str, NetworkUse]:
    """By source, how its network runs; what must be measured is, by a worker of the engine or in this process."""
    kind, uses = kind_for(request), {}
    for source in dict.fromkeys(job.source for job in prepared.plan.jobs):
        jobs = [job for job in prepared.plan.jobs if job.source == source]
        locked = prepared.locked_uses.get(source)
        if locked is not None and locked.device == kind and request.precision in ("auto", locked.arithmetic):
            uses[source] = locked
        else:
            uses[source] = plain_use(jobs[0], request.precision, kind) or _measured(
                request, prepared, registry, jobs, progress, engine
            )
    return uses


def _measured(
    request: Request,
    prepared: Prepared,
    registry: Registry,
    jobs: Sequence[Job],
    progress: Progress,
    engine: Engine | None,
) -> NetworkUse:
    """As measured before on such a device, else now."""
    job, paces = jobs[0], registry.paces
    kind = kind_for(request)
    name = request.workers.card if request.workers else card_of(find_devices(request.device)[0])
    what = (
        f"{job.model.sha256[:16]} with {len(job.classes)} classes on {name}, torch {version('torch')}, "
        f"asked for precision {request.precision}"
    )

    def measured(function: str, *arguments: Any) -> Any:
        model = prepared.models[job.source]
        device = kind if request.workers else request.device
        grey = registry.golden(model).grey
        measure = Measure(job, tissue_of(prepared.em, job), registry.weights(model), grey, request.precision, device)
        task = Task(
            f"{__name__}:{function}", (measure, *arguments), f"{function} {what}", True, f"measure-{job.source}"
        )
        return task.run() if engine is None else next(done(engine, [alone(task)]))[1]

    use, pass_s = NetworkUse.from_plain(paces.fact(f"use of {what}")), paces.seconds(f"pass of {what}")
    if use is None or pass_s is None:
        progress.say(f"{job.source}: measuring how its network runs best on {name}, once")
        use, pass_s = measured("measured_use")
        use = replace(use, device=kind)
        paces.keep(f"use of {what}", use.as_plain())
        paces.keep(f"pass of {what}", pass_s)
    if kind != "cuda":
        return use
    expected_s = sum(each.forward_passes for each in jobs) * pass_s
    compiled = _compiled(paces.fact(f"compiling {what}"))
    if compiled is None and expected_s >= LEAST_COMPILED_S:
        progress.say(f"{job.source}: compiling its network for {name}, once")
        compiled = measured("measured_compiled", use)
        paces.keep(f"compiling {what}", TypeAdapter(_Compiled).dump_python(compiled))
    return _decided(use, expected_s, compiled)


def _compiled(value: object) -> _Compiled | None:
    try:
        return TypeAdapter(_Compiled).validate_python(value)
    except ValidationError:
        return None


def _decided(use: NetworkUse, expected_s: float, compiled: _Compiled | None) -> NetworkUse:
    """Compiled where it gains: what it took once lies on disk for the next time."""
    if compiled is None:
        return replace(use, why=_and(use.why, f"not compiled for about {expected_s:.0f} s of passes"))
    if compiled.failed:
        return replace(use, why=_and(use.why, f"cannot be compiled ({compiled.failed})"))
    gained = f"compiling takes {compiled.took_s:.0f} s and makes it {compiled.gain:.2f} times as fast"
    if compiled.graphs_gain:
        gained += f", CUDA graphs that {compiled.graphs_gain:.2f} times"
    has_graphs = compiled.graphs_gain >= GRAPHS_GAIN
    pays = compiled.gain * (compiled.graphs_gain if has_graphs else 1) >= COMPILED_GAIN
    return replace(use, is_compiled=pays, has_graphs=pays and has_graphs, why=_and(use.why, gained))


def _and(why: str, more: str) -> str:
    return f"{why}; {more}" if why else more


LEAST_COMPILED_S = 300.0
"""Of passes that compiling is tried for."""


@dataclass(frozen=True)
class Measure:
    """A network, the patches that it is measured on, and the device, by name, where it is to run; all can be sent."""

    job: Job
    tissue: Tissue
    weights: Path
    golden_grey: NDArray[Any]
    precision: Precision
    device: str


def measured_use(measure: Measure) -> tuple[NetworkUse, float]:
    """The arithmetic and the number of patches that pay, and the seconds of a pass over one patch: a task."""
    return _Measuring(measure).use()


def measured_compiled(measure: Measure, use: NetworkUse) -> _Compiled:
    """What compiling gains; whatever stands in its way is told: a task."""
    return _Measuring(measure).compiled(use)


class _Measuring:
    def __init__(self, measure: Measure) -> None:
        self._measure, self._job = measure, measure.job
        self._device = find_devices(measure.device)[0]

    def use(self) -> tuple[NetworkUse, float]:
        """The arithmetic and the number of patches that pay, and the seconds of a pass over one patch."""
        precision, network = self._measure.precision, self._network()
        fixed = 1 if self._device.type == "cuda" else patches_per_pass(self._job.patch, self._device.type)
        plain = self._runner(network, NetworkUse("32", fixed))
        golden = self._normalised(self._measure.golden_grey)
        real = self._normalised(self._real_patch())
        answers = [plain(golden).cpu().numpy(), plain(real).cpu().numpy()]
        plain_s = self._pass_s(plain)
        tried: dict[Arithmetic, tuple[float, NetworkUse]] = {"32": (plain_s, plain.use)}
        candidates: Sequence[Arithmetic] = ("tf32", "bf16", "16") if precision == "auto" else (precision,)
        for arithmetic in (each for each in candidates if each != "32"):
            runner = self._runner(copy.deepcopy(network), NetworkUse(arithmetic, fixed))
            try:
                deviations = [
                    deviation_of(runner(patch).cpu().numpy(), answer)
                    for patch, answer in zip((golden, real), answers, strict=True)
                ]
                use = replace(runner.use, golden=deviations[0], real=deviations[1])
                tried[arithmetic] = (self._pass_s(runner), use)
            except RuntimeError as error:
                if precision != "auto":
                    raise EnsembleError(
                        f"--precision {precision}: the network of {self._job.source} cannot compute so on "
                        f"{self._device.type} ({one_line(error, 120)}); choose another"
                    ) from error
        if precision == "auto":
            pass_s, use = _best(tried)
        else:
            pass_s, use = tried[precision]
        if self._device.type == "cuda":
            use, pass_s = self._with_patches(network, use, pass_s)
        return use, pass_s

    def compiled(self, use: NetworkUse) -> _Compiled:
        """What compiling gains; whatever stands in its way is told."""
        network = self._network()
        try:
            plain_s = self._pass_s(self._runner(network, use))
            runner = self._runner(network, replace(use, is_compiled=True))
            began = time.monotonic()
            self._pass_s(runner)
            took_s, pass_s = time.monotonic() - began, self._pass_s(runner)
            return _Compiled(took_s, plain_s / pass_s, self._graphs_gain(network, use, pass_s))
        except Exception as error:  # a compiler fails in as many ways as it has parts
            return _Compiled(failed=one_line(error, 120))

    def _network(self) -> Any:
        from registry import load_network

        return load_network(self._job.model.card, self._measure.weights).to(self._device)

    def _graphs_gain(self, network: Any, use: NetworkUse, pass_s: float) -> float:
        try:
            runner = self._runner(network, replace(use, is_compiled=True, has_graphs=True))
            self._pass_s(runner)
            return pass_s / self._pass_s(runner)
        except Exception:  # memory that graphs keep for themselves, or what they cannot record
            return 0.0

    def _runner(self, network: Any, use: NetworkUse) -> "Runner":
        from ensemble.predict.runner import Runner

        return replace(Runner.of(network, self._job, self._device, use), tta="none")

    def _normalised(self, grey: Any) -> "torch.Tensor":
        import torch

        card = self._job.model.card
        return torch.from_numpy(np.asarray(card.normalisation.apply(grey.astype(np.float32)), np.float32))[None]

    def _real_patch(self) -> Any:
        """EM in the middle of the crop, as the network's voxels, in the lattice of the job."""
        from ensemble.predict.sliding_window import frame_reader

        job = self._job
        start = zyx((n - p) // 2 for n, p in zip(job.lattice.shape, job.patch, strict=True))
        return frame_reader(job, self._measure.tissue)(Box.at(start, job.patch))

    def _pass_s(self, runner: "Runner") -> float:
        """Seconds for one patch of a full pass, the least of some after a first one."""
        import torch

        patches = torch.zeros((runner.use.patches, *self._job.patch), device=self._device)
        runner(patches)
        return min(_timed(lambda: runner(patches), self._device) for _ in range(_TIMED_PASSES)) / runner.use.patches

    def _with_patches(self, network: Any, use: NetworkUse, pass_s: float) -> tuple[NetworkUse, float]:
        """The number of patches a pass that is fastest within the memory that is lent to a pass."""
        import torch

        card_bytes = torch.cuda.get_device_properties(self._device).total_memory
        lent, best = PASS_SHARE * LENT * card_bytes, (replace(use, patches=1), pass_s)
        for patches in (2**power for power in range(MOST_PATCHES.bit_length())):
            torch.cuda.reset_peak_memory_stats(self._device)
            candidate = replace(use, patches=patches)
            try:
                seconds = self._pass_s(self._runner(network, candidate))
            except torch.OutOfMemoryError:
                break
            if torch.cuda.max_memory_allocated(self._device) > lent:
                break
            if patches == 1 or seconds * _ENOUGH < best[1]:
                best = (candidate, seconds)
        torch.cuda.empty_cache()
        return best


def deviation_of(answer: Any, expected: Any) -> Deviation:
    """Of probabilities from those of "32"."""
    apart = np.abs(answer - expected)
    crossing = np.mean((answer > 0.5) != (expected > 0.5))
    return Deviation(float(apart.max()), float(np.quantile(apart, 0.999)), float(crossing))


def _best(tried: dict[Arithmetic, tuple[float, NetworkUse]]) -> tuple[float, NetworkUse]:
    """The fastest that gains enough and changes little enough, and why the others were not taken."""
    plain_s, plain = tried["32"]
    fit = [
        (seconds, use)
        for seconds, use in tried.values()
        if use.real is not None and use.golden is not None and use.real.is_small and use.golden.is_small
        if plain_s / seconds >= GAIN
    ]
    seconds, use = min(fit, key=lambda each: each[0], default=(plain_s, plain))
    speeds = (f"{arithmetic} {plain_s / each:.2f}" for arithmetic, (each, _) in tried.items() if arithmetic != "32")
    return seconds, replace(use, why=f"times as fast as float32: {', '.join(speeds)}")


def _timed(work: Callable[[], Any], device: "torch.device") -> float:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
