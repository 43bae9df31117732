"""Where networks run."""

import torch

from ensemble.support import EnsembleError


def find_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is some, then MPS, then the CPU. Raises EnsembleError for one not there."""
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
    torch.set_num_threads(count)
