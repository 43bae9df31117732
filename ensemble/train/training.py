"""Training a specialist, from a spec to a registered model."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ensemble.storage import Location
from ensemble.support import (
    EXIT_INTERRUPTED,
    RegistryError,
    TrainingError,
    TrainingStopped,
    alone_with,
    without_credentials,
    write_text,
)
from ensemble.train.crops import SURE, AnnotatedCrop, grey_range, open_crops
from ensemble.train.object_sizes import truth_sizes
from ensemble.train.patch_cache import CACHE_BYTES, PatchReader
from ensemble.train.preparation import OnProgress, Task, is_helper, prepared, silent
from ensemble.train.sampling import ValidationPatches
from ensemble.train.spec import TrainingSpec
from ensemble.train.stopping import StopRequest, stop_request
from registry import Card, DataUsed, ModelVersion, Registry, dump_card, load_card

if TYPE_CHECKING:
    from ensemble.train.lightning_module import Reporting
    from ensemble.train.run_log import TrainingLog

WORTH_TELLING = 0.05
"""Of the time of a training, the share in which it waits for patches."""

BEGINNING = 100
"""Steps in which blocks of crops are computed for the first time."""
PATCHES_LOOKED_AT = 16
"""For the one that is shown on the page of the model."""

STATE, CARD = "training.json", "card.yaml"


def train(
    spec: TrainingSpec, *, data_root: Location, registry: Registry, work: Path, progress: OnProgress = silent
) -> ModelVersion:
    """The network of ``spec``, trained and registered under its alias.

    Checkpoints lie in ``work``/NAME; a training that was interrupted goes on from the last, and one that is
    finished is only registered, as long as neither spec nor data have changed. Raises TrainingError,
    VolumeError or CardError for what cannot be learned from, RegistryError if the store does not answer,
    EnsembleError where another process is training there, KeyboardInterrupt, saying how to go on, and
    TrainingStopped after SIGTERM, SIGUSR1 or SIGUSR2: it then goes on after the very step it ended with.

    Where the spec has several ``devices``, Lightning starts the program again for each but the first; there, this
    function ends the program when that training is done.
    """
    folder = Path(work) / spec.name
    # Who helps ends with the one that it helps, after a step of both.
    with stop_request(spec.name) as request, request.steps() if is_helper(folder) else nullcontext():
        return _train(_task(spec, data_root, registry, folder), registry, progress, request)


def _task(spec: TrainingSpec, data_root: Location, registry: Registry, folder: Path) -> Task:
    card = _card(spec)
    root = spec.data or data_root
    training = open_crops(root, spec.crops, spec, "crops")
    validation = open_crops(root, spec.validation_crops, spec, "validation_crops")
    _check_annotated(spec, training)
    _em_dtype(spec, (*training, *validation))
    begun = _begun_from(spec, card, registry)
    digest = _digest(spec, (*training, *validation), begun)
    return Task(spec, card, training, validation, begun, digest, folder)


def _train(task: Task, registry: Registry, progress: OnProgress, request: StopRequest) -> ModelVersion:
    spec, folder = task.spec, task.folder
    if is_helper(folder):
        _help(task, registry, request)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone_with(folder / ".lock", f"{folder}: {spec.name} is being trained there already; wait for it"):
            if _state(folder).get("digest") != task.digest:
                _start_over(folder)
            if not (folder / CARD).exists():
                write_text(folder / CARD, dump_card(_learn(task, registry, progress, request)))
            card, shown = load_card(folder / CARD), _shown(task)
            return registry.register(folder / "best.ckpt", card, alias=spec.alias, shown=shown)
    except OSError as error:
        reason = error.strerror or error
        raise TrainingError(f"{folder}: cannot be written: {reason}; free space, or choose another --work") from error


def _card(spec: TrainingSpec) -> Card:
    try:
        return spec.card()
    except ValidationError as invalid:
        fault = invalid.errors(include_url=False)[0]
        raise TrainingError(f"{spec.where(*fault['loc'])}: {fault['msg']}") from invalid


def _check_annotated(spec: TrainingSpec, crops: Sequence[AnnotatedCrop]) -> None:
    for channel, name in enumerate(spec.classes):
        if all(crop.truths[channel] is None for crop in crops):
            raise TrainingError(
                f"{spec.where('classes', channel)}: {name} is annotated in none of the training crops;"
                " take it out, or add a crop that has it"
            )


def _em_dtype(spec: TrainingSpec, crops: Sequence[AnnotatedCrop]) -> str:
    """The type of all EM; TrainingError where crops differ, whose grey values mean different things."""
    types = {crop.tissue.volume.dtype.newbyteorder("=").name: crop for crop in reversed(crops)}
    if len(types) > 1:
        told = ", ".join(f"{name} in {crop.dataset}" for name, crop in types.items())
        raise TrainingError(f"{spec.where('crops')}: the EM is {told}; train on EM of one type")
    return next(iter(types))


def _begun_from(spec: TrainingSpec, card: Card, registry: Registry) -> ModelVersion | None:
    """The model whose weights training begins with. Raises TrainingError unless it is the same network."""
    if spec.begin_from is None:
        return None
    try:
        version = registry.resolve(spec.begin_from)
    except RegistryError as error:
        raise TrainingError(f"{spec.where('begin_from')}: {error}") from error
    for key in ("architecture", "arguments", "planes", "classes"):
        ours, theirs = getattr(card, key), getattr(version.card, key)
        if ours != theirs:
            raise TrainingError(
                f"{spec.where('begin_from')}: the {key} of {version.uri} is {theirs}, not {ours}; begin from a model"
                " of the same network"
            )
    return version


def _digest(spec: TrainingSpec, crops: Sequence[AnnotatedCrop], begun: ModelVersion | None) -> str:
    parts = [spec.digest(), *(crop.identity() for crop in crops), begun.sha256 if begun else ""]
    return sha256(" ".join(parts).encode()).hexdigest()


def _state(folder: Path) -> dict[str, str]:
    """What the last training in this folder was of, and its MLflow run; empty if there was none."""
    try:
        return dict(json.loads((folder / STATE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TrainingError(f"{folder / STATE}: cannot be read; delete the folder to train anew") from error


def _start_over(folder: Path) -> None:
    for file in (CARD, STATE, *(path.name for path in folder.glob("*.ckpt"))):
        (folder / file).unlink(missing_ok=True)


def _learn(task: Task, registry: Registry, progress: OnProgress, request: StopRequest) -> Card:
    """Train until there is a best.ckpt to be registered with the card returned."""
    module, patches = prepared(task, registry, progress)
    from ensemble.train.fitting import fit
    from ensemble.train.run_log import TrainingLog

    log = TrainingLog.begin(registry.runs, task.spec, task.digest, _state(task.folder).get("run_id"), _data(task))
    write_text(task.folder / STATE, json.dumps({"digest": task.digest, "run_id": log.run_id}))
    with _recorded(log, task.spec, task.folder), _emptied(task.blocks):
        fit(module, patches, task.folder, _reporting(task.spec, log, progress), request)
    return _finished_card(task, log.run_id)


def _shown(task: Task) -> NDArray[Any]:
    """EM of the patch of the validation, of the first ones, in which most is annotated as some class."""
    judged = ValidationPatches(PatchReader(task.validation or task.training, CACHE_BYTES), task.spec.patch_voxels)
    patches = map(judged.patch, range(min(len(judged), PATCHES_LOOKED_AT)))
    best = max(patches, key=lambda patch: np.count_nonzero((patch.codes > 0) & (patch.codes <= SURE)))
    return best.grey


def _data(task: Task) -> list[DataUsed]:
    def used(crop: AnnotatedCrop, use: Literal["training", "validation"]) -> DataUsed:
        digest = sha256(crop.identity().encode()).hexdigest()
        place = without_credentials(str(crop.tissue.volume.place))
        return DataUsed(f"{crop.dataset} crop {crop.name}", digest, place, use)

    return [used(crop, "training") for crop in task.training] + [used(crop, "validation") for crop in task.validation]


def _help(task: Task, registry: Registry, request: StopRequest) -> NoReturn:
    """Train beside the process that started this one, and end with it."""
    module, patches = prepared(task, registry, silent)
    from ensemble.train.fitting import fit
    from ensemble.train.lightning_module import Reporting

    unheard = Reporting(task.spec, lambda step, loss, waiting: None, lambda step, scores: None)
    try:
        fit(module, patches, task.folder, unheard, request)
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except TrainingStopped:
        raise SystemExit(0) from None  # of anything else Lightning would make the end of all
    raise SystemExit(0)


def _reporting(spec: TrainingSpec, log: "TrainingLog", progress: OnProgress) -> "Reporting":
    """Loss and scores as they come, to the log and to whoever watches."""
    from ensemble.train.lightning_module import Reporting, mean_dice
    from ensemble.train.losses import ValidationScores

    dice = ""

    def on_loss(step: int, loss: float, waiting: float) -> None:
        log.add(step, {"loss": loss, "waiting": waiting})
        slow = f", waits for patches {waiting:.0%} of the time" if waiting > WORTH_TELLING and step > BEGINNING else ""
        progress(step, f"loss {loss:.3f}{dice}{slow}")

    def on_scores(step: int, scores: ValidationScores) -> None:
        nonlocal dice
        mean = mean_dice(scores)
        dice = f", Dice {mean:.3f}"
        each = {f"{kind}_{name}": value for name, score in scores.items() for kind, value in score.items()}
        log.add(step, {"dice": mean, **each})
        log.flush()
        progress(step, f"validated{dice}")

    return Reporting(spec, on_loss, on_scores)


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """An empty folder, gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _recorded(log: "TrainingLog", spec: TrainingSpec, folder: Path) -> Iterator[None]:
    """End the log's run as what happens inside it ends."""
    try:
        yield
    except TrainingStopped:
        with suppress(RegistryError):
            log.end("KILLED")
        raise
    except KeyboardInterrupt as stopped:
        with suppress(RegistryError):
            log.end("KILLED")
        kept = "goes on from its last checkpoint" if (folder / "last.ckpt").exists() else "begins anew"
        raise KeyboardInterrupt(f"training of {spec.name} stopped; the same command {kept}") from stopped
    except BaseException:
        with suppress(RegistryError):
            log.end("FAILED")
        raise
    log.end("FINISHED")


def _finished_card(task: Task, run_id: str) -> Card:
    import torch

    best = torch.load(task.folder / "best.ckpt", map_location="cpu", weights_only=True)
    scores = {name: round(score["iou"], 4) for name, score in best["scores"].items()}
    notes = f"Trained for {best['global_step']} steps; MLflow run {run_id}."
    sizes = truth_sizes(task.training, task.spec.classes)
    em = {
        "em_dtype": _em_dtype(task.spec, task.training),
        "em_range": grey_range(task.training, task.spec.patch_voxels),
    }
    return task.spec.card(validation=scores, truth_sizes_log2_nm3=sizes, notes=notes, **em, **task.lineage)
