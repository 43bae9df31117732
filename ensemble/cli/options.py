"""What several commands are told alike: what to build, and within what limits."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.cli import console
from ensemble.support import EnsembleError, cores, default_memory_bytes, has_gpu

if TYPE_CHECKING:
    from ensemble.engine import OnDask
    from ensemble.plan import Budget, Request

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
    """Where commands are added; argparse gives its type no public name."""
else:
    Commands = object

_MOST_WORKERS, _MOST_GIB = 1024, 1 << 20

Run = Callable[[argparse.Namespace], int]
"""What a command does; returns the exit code."""


def command(commands: Commands, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    """A command with its help, run by ``run``."""
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def names(text: str) -> list[str]:
    """The names in a list such as A,B."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; name some, such as A,B, or leave it out for all")
    return found


def add_request(parser: argparse.ArgumentParser, *, recipe_needed: bool = True) -> None:
    """What is built: recipe, manifest, data, device and limits."""
    what = "a path, or the name of a recipe that is shipped"
    parser.add_argument("recipe", metavar="RECIPE", nargs=None if recipe_needed else "?", help=what)
    parser.add_argument("--manifest", type=Path, metavar="CSV", help="what to predict (default: the challenge's own)")
    parser.add_argument("--data", default="data", metavar="ROOT", help="folder or URL of the EM (default: data)")
    parser.add_argument("--crops", type=names, metavar="A,B", help="only these crops")
    parser.add_argument("--classes", type=names, metavar="A,B", help="only these classes")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:1, mps, cuda:0,cuda:1, all (default: auto)")
    parser.add_argument(
        "--precision",
        choices=["auto", "32", "tf32", "16", "bf16"],
        default="auto",
        help="of networks (default: auto, the fastest that changes answers little enough; a CPU's is 32)",
    )
    add_resources(parser)
    parser.add_argument(
        "--gpu-memory", type=float, metavar="GIB", help="of each GPU to stay within (default: 80%% of what is free)"
    )
    parser.add_argument("--absent-is-zero", action="store_true", help="EM chunks never written are really black")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="stored predictions, shared by builds (default: predictions beside OUT)",
    )
    parser.add_argument(
        "--em-cache",
        type=float,
        metavar="GIB",
        help="of EM from a URL to keep on this machine, for all builds; 0 for none (default: 20)",
    )
    parser.add_argument("--update-lock", action="store_true", help="take what the aliases mean now")


def add_resources(parser: argparse.ArgumentParser) -> None:
    """Threads and memory to stay within."""
    parser.add_argument("--workers", type=int, default=cores(), help="threads (default: all cores)")
    half = default_memory_bytes() / 2**30
    parser.add_argument(
        "--memory", type=float, default=half, metavar="GIB", help=f"to stay within (default: half, here {half:.1f})"
    )


def budget_of(arguments: argparse.Namespace) -> "Budget":
    """The limits that were given. Raises EnsembleError for none."""
    from ensemble.plan import Budget

    if not 1 <= arguments.workers <= _MOST_WORKERS:
        raise EnsembleError(f"--workers {arguments.workers}: between 1 and {_MOST_WORKERS} threads can be used")
    if not 0 < arguments.memory <= _MOST_GIB:
        raise EnsembleError(f"--memory {arguments.memory:g}: say a number of GiB above 0, up to {_MOST_GIB:,}")
    return Budget(int(arguments.memory * 2**30), arguments.workers)


def _with_devices(budget: "Budget", arguments: argparse.Namespace) -> "Budget":
    """The limits with those of the devices that were named. Raises EnsembleError for one that is not there."""
    given = _gpu_gib(arguments)
    if arguments.device == "cpu" or (arguments.device == "auto" and not has_gpu()):
        return budget
    from ensemble.predict import find_devices, lent_gpu_bytes

    devices = find_devices(arguments.device)
    lent = lent_gpu_bytes(arguments.device) if given is None else int(given * 2**30)
    return replace(budget, on_cpu=devices[0].type == "cpu", gpu_bytes=lent, devices=len(devices))


def _em_cache_bytes(gib: float) -> int:
    """The limit that was given. Raises EnsembleError for none."""
    if not 0 <= gib <= _MOST_GIB:
        raise EnsembleError(f"--em-cache {gib:g}: say a number of GiB from 0, up to {_MOST_GIB:,}")
    return int(gib * 2**30)


def _gpu_gib(arguments: argparse.Namespace) -> float | None:
    """What was said. Raises EnsembleError for none."""
    given: float | None = arguments.gpu_memory
    if given is not None and not 0 < given <= _MOST_GIB:
        raise EnsembleError(f"--gpu-memory {given:g}: say a number of GiB above 0, up to {_MOST_GIB:,}")
    return given


def default_out(arguments: argparse.Namespace, suffix: str = "") -> Path:
    """Where what ``add_request`` was told is built unless that is said; a part of the manifest apart from the whole."""
    from ensemble.plan import load_recipe, name_of_build

    name = f"{load_recipe(arguments.recipe).name}{suffix}"
    return Path("build") / name_of_build(name, arguments.crops, arguments.classes)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Where the work is done, if not here."""
    parser.add_argument(
        "--engine",
        metavar="ADDRESS",
        help="a dask.distributed cluster whose workers do the work: tcp://HOST:PORT, or the scheduler's file",
    )


@contextmanager
def engine_of(arguments: argparse.Namespace) -> "Iterator[OnDask | None]":
    """The cluster that was named, entered; None for this machine."""
    if arguments.engine is None:
        yield None
        return
    from ensemble.engine import OnDask

    with OnDask(arguments.engine, say=console.note) as engine:
        yield engine


def _with_workers(request: "Request", engine: "OnDask", arguments: argparse.Namespace) -> "Request":
    """The request with the limits of the cluster's workers: devices and threads are theirs, never this machine's."""
    from ensemble.plan import Workers

    given = _gpu_gib(arguments)
    if arguments.device not in ("auto", "cpu", "cuda", "mps"):
        raise EnsembleError(
            f"--device {arguments.device}: each worker of a cluster has one device; say auto, cpu, cuda or mps"
        )
    workers: Workers = engine.ask("ensemble.predict.device:workers_here", arguments.device)
    engine.expect_device("ensemble.predict.device:card_here", arguments.device, answer=workers.card)
    workers = replace(workers, devices=engine.devices)
    lent = workers.gpu_bytes if given is None else int(given * 2**30)
    budget = replace(
        request.budget, on_cpu=workers.device == "cpu", gpu_bytes=lent, devices=workers.devices, workers=workers.cores
    )
    root = request.data_root if "://" in request.data_root else str(Path(request.data_root).resolve())
    return replace(
        request,
        workers=workers,
        budget=budget,
        data_root=root,
        out=request.out.resolve(),  # a worker has a working directory of its own
        cache=request.predictions.resolve(),
    )


def request_of(arguments: argparse.Namespace, out: Path, engine: "OnDask | None" = None) -> "Request":
    """What ``add_request`` was told, its work under ``out``. A recipe that is no file here is named on stderr."""
    from ensemble.plan import Request, find_recipe

    if not Path(arguments.recipe).is_file():
        found = find_recipe(arguments.recipe)
        console.note(f"recipe: {found}, which is shipped; there is no file {arguments.recipe} here")
    budget = budget_of(arguments)
    request = Request(
        recipe=arguments.recipe,
        out=out,
        manifest=arguments.manifest,
        data_root=arguments.data,
        crops=arguments.crops,
        classes=arguments.classes,
        device=arguments.device,
        precision=arguments.precision,
        budget=budget if engine else _with_devices(budget, arguments),
        absent_is_zero=arguments.absent_is_zero,
        update_lock=arguments.update_lock,
        cache=arguments.cache,
    )
    if arguments.em_cache is not None:
        request = replace(request, em_cache_bytes=_em_cache_bytes(arguments.em_cache))
    return _with_workers(request, engine, arguments) if engine else request
