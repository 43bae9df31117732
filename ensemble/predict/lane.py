"""What goes to a device and comes back, in a stream of its own beside the network's."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

_AHEAD = 4
"""Passes that may be queued on a device before the first of them has ended."""


@cache
def _stream(device: torch.device, purpose: str) -> Any:
    """One for each purpose, whatever the number of jobs: memory that was used in a stream is kept for it."""
    return torch.cuda.Stream(device) if device.type == "cuda" else torch.cpu.Stream()  # type: ignore[no-untyped-call]


class Lane:
    """A stream of a device beside the one that networks run in; on the CPU everything is done at once.

    Host memory of what is moved is pinned, so that neither stream nor thread waits for the other's copies.
    """

    def __init__(self, device: torch.device, purpose: Literal["in", "out"]) -> None:
        self._on_gpu = device.type == "cuda"
        self._device = device
        self._stream = _stream(device, purpose)
        self._queued: deque[Any] = deque()

    @contextmanager
    def _beside(self) -> Iterator[None]:
        with torch.cuda.stream(self._stream) if self._on_gpu else torch.cpu.stream(self._stream):
            yield

    def uploaded(self, values: NDArray[Any], prepare: Callable[[Any], Any]) -> tuple[torch.Tensor, Any]:
        """What is made of the values as float32, on the device, and what ``joined`` waits for; bytes travel as such.

        On a CPU ``prepare`` is given an array: torch's threads would compete with those of the network.
        """
        if not self._on_gpu:
            prepared = np.ascontiguousarray(prepare(values.astype(np.float32)))
            return torch.from_numpy(prepared).to(self._device), None
        dtype = np.uint8 if values.dtype == np.uint8 else np.float32
        host = torch.from_numpy(np.require(values, dtype, ["C", "W"]))
        with self._beside():
            there = prepare(host.pin_memory().to(self._device, non_blocking=True).float())
            return there, self._stream.record_event()

    def joined(self, there: torch.Tensor, event: Any) -> torch.Tensor:
        """What was uploaded, for the stream that networks run in."""
        if self._on_gpu:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(event)
            there.record_stream(stream)
        return there

    def mark(self) -> Any:
        """What ``downloaded`` waits for: all that was queued so far in the stream that networks run in."""
        return torch.cuda.current_stream(self._device).record_event() if self._on_gpu else None

    def downloaded(self, values: torch.Tensor, event: Any) -> NDArray[Any]:
        """The values on the host, once what was queued before ``event`` has ended; for a thread of its own."""
        if not self._on_gpu:
            return values.cpu().numpy()
        with self._beside():
            self._stream.wait_event(event)
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            values.record_stream(self._stream)
            self._stream.synchronize()
            return host.numpy()

    def keep_pace(self) -> None:
        """Wait until no more passes are queued than the device has to have in stock; called after each."""
        self._queued.append(self.mark())
        if len(self._queued) > _AHEAD:
            event = self._queued.popleft()
            if event is not None:
                event.synchronize()
