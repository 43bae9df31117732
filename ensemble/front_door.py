"""What a Python program does with this project, each verb with the defaults that the command line has."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ensemble.core import Box, Grid, load_manifest
from ensemble.plan import PlanDescription, Request, prepare, registry_of
from ensemble.scoring import LATEST_RULES, Scores
from ensemble.scoring import score as score_submission
from ensemble.submission import CheckReport, StoredArray, Submission, submission_at
from ensemble.submission import check as check_submission
from ensemble.support import Progress, SubmissionError, nearest
from registry import Registry

if TYPE_CHECKING:  # these load torch, for which nobody should wait who only plans, checks or scores
    from ensemble.build import Built
    from ensemble.tune import Tuned, TuningTask

__all__ = ["ArrayOnGrid", "OpenSubmission", "Registry", "build", "check", "open", "plan", "score", "tune"]


@dataclass(frozen=True)
class ArrayOnGrid:
    """One class of one crop: its voxels, axes z, y, x, and where they lie.

    Nothing is decoded before it is asked for. Of an instance class 0 is background and every other value an
    object's id; of a semantic class values are 0 and 1.
    """

    grid: Grid
    stored: StoredArray

    @cached_property
    def array(self) -> NDArray[Any]:
        """All voxels, in the dtype they are stored in; kept. Raises SubmissionError for a damaged chunk."""
        return self.read(self.grid.box)

    def read(self, box: Box) -> NDArray[Any]:
        """The voxels of a box, in the dtype they are stored in, perhaps read only; only its chunks are decoded.

        Raises ValueError for a box that reaches beyond the array, and SubmissionError for a damaged chunk.
        """
        if not box.within(self.grid.box):
            raise ValueError(f"the box {box.start} to {box.stop} reaches beyond the array's {self.grid.shape} voxels")
        return self.stored.read(box)


@dataclass(frozen=True)
class OpenSubmission:
    """The arrays of a submission by their places, such as "crop557/mito"; to be closed, or used in a ``with``."""

    submission: Submission

    def __getitem__(self, place: str) -> ArrayOnGrid:
        """Raises SubmissionError for what is not there, cannot be decoded, or does not say where it lies."""
        if place not in self:
            at = self.submission.members.place
            raise SubmissionError(f"{at}: {place}: there is no such array{nearest(place, self)}")
        stored = self.submission.array(*place.split("/"))
        return ArrayOnGrid(stored.grid, stored)

    @cached_property
    def places(self) -> tuple[str, ...]:
        """The place of every array, crops and classes in the order of their names."""
        return tuple(f"{crop}/{name}" for crop in self.submission.crops for name in self.submission.names(crop))

    def __contains__(self, place: object) -> bool:
        return place in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __enter__(self) -> "OpenSubmission":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.submission.members.close()


def open(path: str | Path) -> OpenSubmission:
    """The arrays of a submission: a zip, an unzipped folder, or the folder of a build.

    Nothing in it is trusted or executed, and nothing decoded yet. Raises SubmissionError for what is none.
    """
    return OpenSubmission(Submission.open(submission_at(path)))


def plan(request: Request, registry: Registry | None = None) -> PlanDescription:
    """What ``build`` would do and what that costs; nothing runs and nothing is written.

    ``.cost`` sums up arrays, voxels, patches, forward passes, bytes to store and peak memory; ``.crops`` tells how each
    class is made. Raises an EnsembleError for whatever a person must mend.
    """
    prepared = prepare(request, registry or registry_of(request.out))
    return prepared.described(request.budget, prepared.hours(prepared.plan.jobs))


def build(request: Request, registry: Registry | None = None, progress: Progress | None = None) -> "Built":
    """The submission that the request asks for lies in ``request.zip``, checked, and is recorded as an MLflow run.

    What an earlier build left in ``request.out`` is gone on from. Unlike the command, this makes no report.html. The
    result's ``.report`` is what ``check`` found. Raises an EnsembleError for whatever a person must mend; then nothing
    half-written is left in place of a result.
    """
    from ensemble.build import build as build_submission

    return build_submission(request, registry or registry_of(request.out), progress)


def check(path: str | Path, manifest: Path | None = None) -> CheckReport:
    """What is in, and what is wrong with, a submission: a zip, an unzipped folder, or the folder of a build.

    It is held against the challenge's own manifest where no other is given. Faults are in the result's ``.faults``,
    never raised; SubmissionError is raised only where there is nothing to look into.
    """
    return check_submission(submission_at(path), load_manifest(manifest))


def score(
    path: str | Path,
    truth: str | Path,
    manifest: Path | None = None,
    *,
    rules: str = LATEST_RULES,
    progress: Progress | None = None,
) -> Scores:
    """The challenge's numbers of a submission: a zip, an unzipped folder, or the folder of a build.

    ``truth`` holds an array for each crop and class, "crop557/mito". The manifest is the challenge's own where no other
    is given. ``.overall`` and ``.by_class`` of the result are between 0 and 1. Raises SubmissionError or VolumeError,
    naming all of them, for arrays that are not on the manifest's grid or cannot be read.
    """
    targets = load_manifest(manifest)
    return score_submission(submission_at(path), truth, targets, rules_name=rules, progress=progress)


def tune(task: "TuningTask", registry: Registry | None = None, progress: Progress | None = None) -> "Tuned":
    """The recipe that scores best on the task's truth is written to ``task.to``, and both are recorded in MLflow.

    The result tells, for each class, what was chosen and why, and the official scores before and after. Raises an
    EnsembleError for whatever a person must mend, such as truth that a model was trained on.
    """
    from ensemble.tune import tune as tune_recipe

    return tune_recipe(task, registry or Registry(), progress)
