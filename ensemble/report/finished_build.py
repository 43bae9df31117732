"""A finished build, as its folder tells of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from ensemble.core import Grid, Target, nm_zyx, zyx
from ensemble.plan import PlanDescription
from ensemble.storage import DEFAULT_EM_CACHE_BYTES, EM, Volume
from ensemble.submission import CheckReport
from ensemble.support import EnsembleError, RegistryError, StageCost, load_yaml, read_sealed


@dataclass(frozen=True)
class BuildCosts:
    """What costs.json says; None where it does not."""

    stages: tuple[StageCost, ...] = ()
    forward_passes: int | None = None
    predictions: int | None = None
    predictions_kept: int | None = None
    groups: int | None = None
    groups_kept: int | None = None


@dataclass(frozen=True)
class FinishedBuild:
    """The files a finished build left in a folder; ``data_root`` is where its EM was.

    ``scores`` as scores.json has them, None where nobody scored it.
    """

    out: Path
    plan: PlanDescription
    check: CheckReport
    data_root: str
    costs: BuildCosts
    scores: Mapping[str, Any] | None
    em_cache_bytes: int = DEFAULT_EM_CACHE_BYTES

    @classmethod
    def of(cls, out: Path) -> "FinishedBuild":
        """Raises EnsembleError for a folder without a finished build."""
        out = Path(out)
        plan, check = _mapping_in(out / "plan.json"), _mapping_in(out / "check.json")
        if plan is None or check is None or not (out / "lock.yaml").exists() or not (out / "submission.zip").exists():
            raise EnsembleError(f"{out}: holds no finished build; run ensemble build RECIPE --out {out} first")
        lock, _ = load_yaml(out / "lock.yaml", RegistryError)
        try:
            report = CheckReport.from_json(json.dumps(check))
        except ValueError as error:
            raise EnsembleError(f"{out / 'check.json'}: not what a build writes; delete it, and build again") from error
        kept = read_sealed(out / "work" / "request.json")
        asked = kept if isinstance(kept, dict) else {}
        data_root, em_cache_bytes = asked.get("data_root"), asked.get("em_cache_bytes")
        return cls(
            out,
            plan_described(plan, out),
            report,
            data_root if isinstance(data_root, str) else str(lock.get("data", "")),
            _valid(BuildCosts, _mapping_in(out / "costs.json") or {}, out / "costs.json"),
            _mapping_in(out / "scores.json", _SCORES),
            em_cache_bytes if isinstance(em_cache_bytes, int) else DEFAULT_EM_CACHE_BYTES,
        )

    @property
    def targets(self) -> tuple[Target, ...]:
        """The crops, with the classes that were made in them."""
        return tuple(
            Target(name, crop.dataset, self.grid(name), tuple(crop.classes)) for name, crop in self.plan.crops.items()
        )

    def grid(self, crop: str) -> Grid:
        """A crop's, by name ("557")."""
        described = self.plan.crops[crop].grid
        return Grid(zyx(described.shape), nm_zyx(described.voxel_size_nm), nm_zyx(described.origin_nm))

    @cached_property
    def _em(self) -> EM:
        return EM(self.data_root, cache_bytes=self.em_cache_bytes)

    def em(self, dataset: str) -> Sequence[Volume] | None:
        """The EM's pyramid, or None where it is not at hand."""
        try:
            return self._em.pyramid(dataset).levels
        except EnsembleError:
            return None


def plan_described(plan: Mapping[str, Any], out: Path) -> PlanDescription:
    """What plan.json says of the build in ``out``. Raises EnsembleError where that is no plan."""
    return _valid(PlanDescription, plan, out / "plan.json")


_Kind = TypeVar("_Kind")

_SCORES = ("overall_score", "overall_instance_score", "overall_semantic_score", "label_scores")


def _mapping_in(path: Path, keys: Sequence[str] = ()) -> dict[str, Any] | None:
    """The mapping in a file, None where there is none. Raises EnsembleError for one without these keys."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError as error:
        raise EnsembleError(f"{path}: damaged; build again, or delete the file") from error
    if not isinstance(values, dict) or any(key not in values for key in keys):
        raise EnsembleError(f"{path}: not what a build writes; build again, or delete the file")
    return values


def _valid(kind: type[_Kind], values: Mapping[str, Any], path: Path) -> _Kind:
    """The values of a file as what they are. Raises EnsembleError where they are something else."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValueError as error:
        raise EnsembleError(f"{path}: not what a build writes; build again, or delete the file") from error
