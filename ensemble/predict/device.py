"""Where networks run; torch is imported where only it can tell."""

from typing import TYPE_CHECKING

from ensemble.support import EnsembleError, has_gpu

if TYPE_CHECKING:
    import torch


def device_kind(name: str) -> str:
    """cpu, cuda or mps. Raises EnsembleError for a device that is not there."""
    return "cpu" if name == "cpu" or (name == "auto" and not has_gpu()) else find_device(name).type


def find_device(name: str) -> "torch.device":
    """``auto`` is CUDA where there is some, then MPS, then the CPU. Raises EnsembleError for one not there."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    kind = name.split(":")[0]
    if not there.get(kind, False):
        have = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise EnsembleError(f"--device {name}: not on this machine, which has {have}")
    return torch.device(name)


def fix_threads(count: int) -> None:
    """Let every operation of a network use this many threads: their number changes the last bits."""
    import torch

    torch.set_num_threads(count)
