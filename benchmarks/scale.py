"""How a build gets faster with more workers, by simulation from what its tasks took here.

    python -m benchmarks.scale [--work DIR] [--crops A,B] [--hours H] [--engines CROP]

The official manifest is built from synthetic stored probabilities (see ``full``), each task timed where it runs. Then
the same loop hands the same tasks to 1, 2, 4, 8, 16 and 64 workers whose clock is simulated, what tasks returned put
in their place. Predicting is simulated by forward passes alone: a multi-class network at 8 nm over every crop, in the
slabs that a build cuts for so many GPUs. Each row names what the last worker waited for.

``--engines CROP`` instead assembles a crop by one process, by two, and by two workers of a Dask cluster here.
"""

import argparse
import heapq
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import synthetic
from ensemble.build.crops import Crops
from ensemble.build.workspace import Workspace
from ensemble.core import Grid, LevelFit, nm_zyx, official_manifest, patch_starts, zyx
from ensemble.engine import Engine, Finished, Here, OnDask, Task, Work, done, gather
from ensemble.plan import Budget, Job, Prepared, Request, longest_slabs_first, parts_of, prepare, slabs_for
from ensemble.predict import Predictor
from ensemble.submission import check, pack, write_group_files
from ensemble.support import QuietProgress, cores
from registry import Registry
from tests.support.dask_cluster import PLAIN, cluster

WORKERS = (1, 2, 4, 8, 16, 64)
A_TASK_S = 0.014
"""What Dask takes for a task beside the work."""


@dataclass(frozen=True)
class Took:
    """What a task took and returned."""

    seconds: float
    value: Any


def timed(task: Task) -> Took:
    began = time.perf_counter()
    value = task.run()
    return Took(time.perf_counter() - began, value)


class Timing:
    """An engine that remembers what each task took and returned."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._own = engine, dict[str, Task]()
        self.hear: Callable[[Task, Any], None] = lambda task, news: None
        self.took: dict[str, Took] = {}
        self.decided_s = 0.0

    @property
    def at_once(self) -> int:
        return self._engine.at_once

    @property
    def is_idle(self) -> bool:
        return self._engine.is_idle

    def submit(self, task: Task) -> None:
        self._own[task.key] = task
        wrapped = replace(task, function="benchmarks.scale:timed", arguments=(task,))
        self._engine.submit(wrapped)

    def forget(self) -> None:
        self._engine.forget()

    def finished(self) -> Finished:
        ended = self._engine.finished()
        took: Took = ended.result()
        self.took[ended.task.key] = took
        if ended.task.what == "decide-bands":
            self.decided_s = time.perf_counter()
        return Finished(self._own.pop(ended.task.key), took.value)


@dataclass
class _Run:
    """A task on a simulated worker: when it was given out, begun and ended, and the run that it waited for."""

    task: Task
    given_s: float
    begun_s: float = 0.0
    ended_s: float = 0.0
    after: "_Run | None" = None


@dataclass
class Simulated:
    """Workers whose time is that of ``took``; ``clock_s`` is how long all has lasted."""

    at_once: int
    took: Callable[[Task], Took]
    clock_s: float = 0.0
    hear: Callable[[Task, Any], None] = lambda task, news: None
    _free: int = field(init=False)
    _waiting: deque[_Run] = field(default_factory=deque)
    _under_way: list[tuple[float, int, _Run]] = field(default_factory=list)
    _last: "_Run | None" = None
    _count: int = 0

    def __post_init__(self) -> None:
        self._free = self.at_once

    @property
    def is_idle(self) -> bool:
        return self._free > 0

    def submit(self, task: Task) -> None:
        self._waiting.append(_Run(task, self.clock_s, after=self._last))
        self._begin(None)

    def forget(self) -> None:
        self._waiting.clear()

    def finished(self) -> Finished:
        self.clock_s, _, run = heapq.heappop(self._under_way)
        self._free, self._last = self._free + 1, run
        self._begin(run)
        return Finished(run.task, self.took(run.task).value)

    def _begin(self, freed_by: "_Run | None") -> None:
        while self._free and self._waiting:
            run = self._waiting.popleft()
            run.begun_s = self.clock_s
            run.after = freed_by if freed_by is not None and run.given_s < self.clock_s else run.after
            run.ended_s = self.clock_s + self.took(run.task).seconds + A_TASK_S
            self._free, self._count = self._free - 1, self._count + 1
            heapq.heappush(self._under_way, (run.ended_s, self._count, run))

    def critical(self) -> str:
        """What the time of the last worker to end went to, the most first."""
        seconds: Counter[str] = Counter()
        run = self._last
        while run is not None:
            seconds[run.task.what] += run.ended_s - run.begun_s
            run = run.after
        return ", ".join(
            f"{what} {100 * took / max(self.clock_s, 1e-9):.0f} %" for what, took in seconds.most_common(3)
        )


@dataclass(frozen=True)
class _Model:
    """As much of a multi-class network at 8 nm as patches are laid out by."""

    card: SimpleNamespace
    name: str = "multi"
    version: int = 1
    sha256: str = ""
    weights_bytes: int = 0
    patch_bytes: int = 0


def eight_nm_jobs() -> list[Job]:
    """A network of 96³ patches at 8 nm over every crop of the official manifest, without context."""
    model = _Model(SimpleNamespace(patch_voxels=(96, 96, 96)))
    jobs = []
    for target in official_manifest():
        lattice = target.grid.covering((8, 8, 8))
        stored = target.grid.covering(nm_zyx(max(8, v) for v in target.grid.voxel_size_nm))
        z, y, x = (tuple(patch_starts(max(n, 96), 96, 0.5)) for n in lattice.shape)
        whole = Grid(zyx(max(n, 96) for n in lattice.shape), lattice.voxel_size_nm, lattice.origin_nm)
        fit = LevelFit(0, exact=True, upsampled=False)
        job = Job(
            "multi", model, "none", target.crop, target.dataset, fit, whole, whole.box, whole, lattice.box, stored,
            (z, y, x), target.classes, 0,
        )  # fmt: skip
        jobs.append(job)
    return jobs


def row(what: str, workers: int, alone_s: float, engine: Simulated) -> None:
    speed = alone_s / engine.clock_s
    print(f"{what:12}{workers:8}{engine.clock_s / 60:12.1f} min{speed:9.1f}x   {engine.critical()}", flush=True)


def predicting(jobs: Sequence[Job], hours: float) -> None:
    """One GPU takes so many hours for all passes."""
    pass_s = 3600 * hours / sum(job.forward_passes for job in jobs)

    def took(task: Task) -> Took:
        return Took(task.arguments[0] * pass_s, None)

    def work(job: Job, slabs: int) -> Work[None]:
        parts = parts_of(job, slabs=slabs)
        tasks = [Task("", (part.job.forward_passes,), f"{job.identity} {part.box}", what=job.crop) for part in parts]
        yield from gather(tasks, lambda task, value: None)

    for workers in WORKERS:
        engine = Simulated(workers, took)
        slabs = slabs_for(jobs, workers)
        works = (work(job, slabs[job.identity]) for job in longest_slabs_first(jobs, slabs))
        list(done(engine, works, 1 if workers == 1 else 2 * workers))
        row("predicting", workers, 3600 * hours, engine)


def assembling(prepared: Prepared, request: Request, took: Mapping[str, Took], folder: Path) -> None:
    alone_s = 0.0
    for workers in WORKERS:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        engine = Simulated(workers, lambda task: took[task.key])
        predictor = Predictor.of(request, prepared, Registry(), QuietProgress())
        Crops(prepared.plan, predictor, Workspace(folder), request.budget, QuietProgress()).assemble(engine)
        alone_s = alone_s or engine.clock_s
        row("assembling", workers, alone_s, engine)


def engines(prepared: Prepared, request: Request, folder: Path) -> None:
    """Wall time of a crop by each engine, and of deciding alone."""

    def assembled_s(engine: Engine) -> tuple[float, float]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        predictor, timing = Predictor.of(request, prepared, Registry(), QuietProgress()), Timing(engine)
        began = time.perf_counter()
        Crops(prepared.plan, predictor, Workspace(folder), request.budget, QuietProgress()).assemble(timing)
        return time.perf_counter() - began, timing.decided_s - began

    def warm(engine: Engine) -> None:
        """Have each worker import what it needs."""
        list(done(engine, [gather([Task("time:sleep", (2,), f"{n}") for n in range(engine.at_once)], lambda *_: None)]))

    rows: dict[str, tuple[float, float]] = {}
    for count in (1, 2):
        with Here(count, in_processes=True) as here:
            warm(here)
            rows[f"{count} processes"] = assembled_s(here)
    with cluster(folder.parent / "cluster", PLAIN, PLAIN) as made, OnDask(str(made.file)) as dask:
        while dask.at_once < 2:
            time.sleep(0.1)
        warm(dask)
        rows["2 workers of Dask"] = assembled_s(dask)
    whole_s, decided_s = rows["1 processes"]
    for what, (all_s, deciding_s) in rows.items():
        print(
            f"{what:20} {all_s:7.1f} s ({whole_s / all_s:.2f}x)   deciding {deciding_s:7.1f} s "
            f"({decided_s / deciding_s:.2f}x)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build/full"))
    parser.add_argument("--crops", metavar="A,B", help="only these (default: all 16)")
    parser.add_argument("--engines", metavar="CROP", help="compare engines on this crop")
    parser.add_argument("--hours", type=float, default=40, help="of one GPU for all passes (default: 40)")
    arguments = parser.parse_args()
    if not arguments.engines:
        predicting(eight_nm_jobs(), arguments.hours)
    probabilities = arguments.work / "probabilities"
    if not (probabilities / "recipe.yaml").exists():
        synthetic.write(probabilities, official_manifest())
    out, crops = arguments.work / "scale", (arguments.engines or arguments.crops or "").split(",")
    shutil.rmtree(out, ignore_errors=True)
    request = Request(
        probabilities / "recipe.yaml",
        out,
        data_root=str(probabilities.resolve()),
        crops=[crop for crop in crops if crop] or None,
    )
    request = replace(request, budget=Budget(8 << 30, cores()))
    prepared = prepare(request, Registry())
    if arguments.engines:
        engines(prepared, request, arguments.work.resolve() / "engines")
        return
    predictor = Predictor.of(request, prepared, Registry(), QuietProgress())
    work = Workspace(out / "work")
    work.root.mkdir(parents=True)
    began = time.perf_counter()
    with Here(cores(), in_processes=True, memory_bytes=request.budget.tasks_bytes) as here:
        engine = Timing(here)
        Crops(prepared.plan, predictor, work, request.budget, QuietProgress()).assemble(engine)
        assembled_s = time.perf_counter() - began
        targets = [crop.target for crop in prepared.plan.crops]
        write_group_files(work.store, targets, {})
        pack(work.store, out / "submission.zip", targets)
        packed_s = time.perf_counter() - began - assembled_s
        check(out / "submission.zip", targets, engine=engine)
    checked_s = time.perf_counter() - began - assembled_s - packed_s
    seconds = sum(took.seconds for took in engine.took.values())
    print(
        f"here, {cores()} processes: assembling {assembled_s / 60:.1f} min, packing {packed_s:.0f} s, checking "
        f"{checked_s:.0f} s; {len(engine.took)} tasks of {seconds / len(engine.took):.1f} s on average"
    )
    assembling(prepared, request, engine.took, arguments.work / "simulated")


if __name__ == "__main__":
    main()
