"""How a network runs on a device: its arithmetic, how many patches at once, whether compiled, and what that changes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ensemble.plan.job import Job, Precision, patches_per_pass

Arithmetic = Literal["32", "tf32", "16", "bf16"]
"""Numbers that a network computes with. "32" is IEEE single precision; "tf32" rounds the factors of products."""

MOST_AT_999, MOST_CROSSING = 0.01, 1e-3
"""The least that a chosen arithmetic must keep to: of 1,000 probabilities 999 within the first, and no larger share of
voxels on the other side of 0.5 than the second."""


@dataclass(frozen=True)
class Deviation:
    """How far probabilities are from those of "32": the farthest, that of 999 in 1,000, the share that crosses 0.5."""

    highest: float
    at_999: float
    crossing: float

    @property
    def is_small(self) -> bool:
        return self.at_999 <= MOST_AT_999 and self.crossing <= MOST_CROSSING

    @property
    def in_words(self) -> str:
        return f"at most {self.highest:.2g}, 99.9 % within {self.at_999:.2g}, {self.crossing:.2%} cross 0.5"


@dataclass(frozen=True)
class NetworkUse:
    """How a network runs: part of what decides its last bits, and so of a prediction's key and of the lock.

    ``why`` says what was measured. ``golden`` and ``real`` tell of the model's golden input and of a patch of the EM;
    None where nothing deviates. ``device``: cpu, cuda or mps; on another it is not obeyed. ``has_graphs``: CUDA replays
    the kernels of a compiled network as graphs, one for each number of patches.
    """

    arithmetic: Arithmetic
    patches: int
    is_compiled: bool = False
    why: str = ""
    golden: Deviation | None = None
    real: Deviation | None = None
    device: str = ""
    has_graphs: bool = False

    @property
    def decides(self) -> tuple[str, int, bool, bool]:
        """What of it decides the last bits of an answer."""
        return self.arithmetic, self.patches, self.is_compiled, self.has_graphs

    @property
    def plain(self) -> "NetworkUse":
        """The same, not compiled."""
        return replace(self, is_compiled=False, has_graphs=False)

    @property
    def in_words(self) -> str:
        words = [_NAMES[self.arithmetic], f"{self.patches} patch{'' if self.patches == 1 else 'es'} a pass"]
        words += (
            ["compiled, its kernels replayed as CUDA graphs" if self.has_graphs else "compiled"]
            if self.is_compiled
            else []
        )
        words += [self.why] if self.why else []
        told = {"golden input": self.golden, "patch of the EM": self.real}
        words += [f"its {what}: {deviation.in_words}" for what, deviation in told.items() if deviation is not None]
        return "; ".join(words)

    def as_plain(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    @classmethod
    def from_plain(cls, value: object) -> "NetworkUse | None":
        """What ``as_plain`` wrote; None for anything else."""
        try:
            use = TypeAdapter(cls).validate_python(value)
        except ValidationError:
            return None
        return use if use.patches > 0 else None


_NAMES: Mapping[str, str] = {"32": "float32", "tf32": "TF32", "16": "float16", "bf16": "bfloat16"}


def plain_use(job: Job, precision: Precision, device_kind: str) -> NetworkUse | None:
    """How a job's network runs where there is nothing to measure; None where there is.

    Only CUDA is tried for what it gains: elsewhere it is "32" and a fixed number of patches unless something is asked.
    """
    if device_kind != "cuda" and precision in ("auto", "32"):
        return NetworkUse("32", patches_per_pass(job.patch, device_kind), device=device_kind)
    return None
