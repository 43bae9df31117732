"""What the workers of a cluster have, where networks do not run in the process that plans."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workers:
    """The cluster's workers as the first of them is; the others are alike.

    ``device``: cpu, cuda or mps, of the make ``card``. ``threads`` work on one operation of a network, and ``cores`` on
    anything else. ``gpu_bytes`` of each device may be used. ``devices``: workers that run networks.
    """

    device: str
    card: str
    threads: int
    cores: int
    gpu_bytes: int
    devices: int
