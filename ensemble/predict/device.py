"""Where networks run; torch is imported where only it can tell."""

from typing import TYPE_CHECKING

from ensemble.plan import Request, Workers
from ensemble.support import EnsembleError, cores, has_gpu

if TYPE_CHECKING:
    import torch

LENT = 0.8
"""Of the memory that is free on a GPU, where nothing else is said."""


def device_kind(name: str) -> str:
    """cpu, cuda or mps. Raises EnsembleError for a device that is not there."""
    return "cpu" if name == "cpu" or (name == "auto" and not has_gpu()) else find_devices(name)[0].type


def kind_for(request: Request) -> str:
    """The kind of device that a request's networks run on: that of the cluster's workers, or one of this process."""
    return request.workers.device if request.workers else device_kind(request.device)


def workers_here(device: str) -> Workers:
    """What the process that this is called in has: a task, done by a cluster's worker.

    Raises EnsembleError for a device that is not there.
    """
    first = find_devices(device)[0]
    return Workers(first.type, card_of(first), cores(), cores(), lent_gpu_bytes(str(first)), 1)


def card_here(device: str) -> str:
    """The make of device that a worker has; what stands in the way of telling, where something does."""
    try:
        return card_of(find_devices(device)[0])
    except EnsembleError as error:
        return str(error)


def find_device(name: str) -> "torch.device":
    """``auto`` is CUDA where there is some, then MPS, then the CPU. Raises EnsembleError for one not there."""
    import torch

    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    kind, _, index = name.partition(":")
    if not (index == "" or index.isdecimal()) or int(index or 0) >= there.get(kind, 0):
        have = ", ".join(
            f"{kind}:0 to {kind}:{count - 1}" if count > 1 else kind for kind, count in there.items() if count
        )
        raise EnsembleError(f"--device {name}: not on this machine, which has {have}")
    return torch.device(name)


def find_devices(names: str) -> list["torch.device"]:
    """Those of a list such as cuda:0,cuda:1; ``all`` are all CUDA devices. Raises EnsembleError for one not there."""
    import torch

    if names == "all" and torch.cuda.device_count():
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    devices = [find_device(name.strip()) for name in names.split(",")]
    if devices[0].type != "cpu" and len(set(devices)) < len(devices):
        raise EnsembleError(f"--device {names}: names a device twice")
    if len({device.type for device in devices}) > 1:
        raise EnsembleError(f"--device {names}: devices of one kind are needed, so that results are the same on all")
    return devices


def card_of(device: "torch.device") -> str:
    """The kind of device, by which what was measured on it is kept: a GPU's name and memory."""
    import torch

    if device.type != "cuda":
        return device.type
    memory_bytes = torch.cuda.get_device_properties(device).total_memory
    return f"{torch.cuda.get_device_name(device)} of {memory_bytes / 2**30:.0f} GiB"


def lent_gpu_bytes(names: str) -> int:
    """What a process may use of each GPU's memory: most of what is free on the fullest; 0 where that cannot be told."""
    import torch

    devices = find_devices(names)
    if devices[0].type != "cuda":
        return 0
    return int(LENT * min(torch.cuda.mem_get_info(device)[0] for device in devices))


def fix_threads(count: int) -> None:
    """Let every operation of a network use this many threads: their number changes the last bits."""
    import torch

    torch.set_num_threads(count)
