"""The streams that a step runs on, and marks on them: moments by the wall clock, or events of a GPU."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

COMPUTE, PREFETCH, DEMAND = "compute", "prefetch", "demand"
"""Names of the streams: compute, prefetches and demand copies."""
CALIBRATION_CYCLES = 20_000_000
"""Cycles of the kernel that holds the device back: some 10 ms, long beside the time of a launch."""


class HostQueues:
    """The streams on a machine without a GPU: everything is done in the order of the calls, on the spot."""

    def start(self, head_start: float) -> Any:
        """Begin a step: on a CPU everything runs where it is called."""
        return time.perf_counter()

    def on(self, stream: str) -> AbstractContextManager:
        """Run on `stream` what is called inside this context."""
        return nullcontext()

    def mark(self, stream: str) -> Any:
        """Return the moment at which `stream` comes to this point."""
        return time.perf_counter()

    def wait(self, stream: str, mark: Any) -> None:
        """Let `stream` wait until `mark` has been reached."""

    def reached(self, mark: Any) -> bool:
        """Return whether the device has come to `mark` by now."""
        return True

    def end(self) -> Any:
        """Return the moment at which all streams have ended the step, after it."""
        return time.perf_counter()

    def seconds(self, begin: Any, mark: Any) -> float:
        """Return the seconds from the mark `begin` to a later mark."""
        return mark - begin


class CudaQueues(HostQueues):
    """The streams of a GPU; marks are events, created once and used again in every step."""

    def __init__(self, *, miss_priority: bool) -> None:
        """Compute on the current stream and copy on one more, or on two where demand copies have priority."""
        prefetch = torch.cuda.Stream()
        demand = torch.cuda.Stream() if miss_priority else prefetch
        self._streams = {COMPUTE: torch.cuda.current_stream(), PREFETCH: prefetch, DEMAND: demand}
        self._events: list[torch.cuda.Event] = []
        self._used = 0
        self._cycles_per_second = self._calibrated()

    def start(self, head_start: float) -> torch.cuda.Event:
        """Begin a step, `head_start` seconds after what is queued from here on could start."""
        self._used = 0
        if head_start:
            torch.cuda._sleep(int(head_start * self._cycles_per_second))
        return self.mark(COMPUTE)

    def on(self, stream: str) -> AbstractContextManager:
        """Queue on `stream` what is called inside this context."""
        return torch.cuda.stream(self._streams[stream])

    def mark(self, stream: str) -> torch.cuda.Event:
        """Return an event at this point of `stream`, good until the next step begins."""
        if self._used == len(self._events):
            self._events.append(torch.cuda.Event(enable_timing=True))
        event = self._events[self._used]
        self._used += 1
        event.record(self._streams[stream])
        return event

    def wait(self, stream: str, mark: torch.cuda.Event) -> None:
        """Let `stream` wait until `mark` has been reached."""
        self._streams[stream].wait_event(mark)

    def reached(self, mark: torch.cuda.Event) -> bool:
        """Return whether the device has come to `mark` by now."""
        return mark.query()

    def end(self) -> torch.cuda.Event:
        """Return an event after everything on all streams; the host waits for it."""
        for stream in (PREFETCH, DEMAND):
            self._streams[COMPUTE].wait_stream(self._streams[stream])
        event = self.mark(COMPUTE)
        event.synchronize()
        return event

    def seconds(self, begin: torch.cuda.Event, mark: torch.cuda.Event) -> float:
        """Return the seconds from the event `begin` to a later one."""
        return begin.elapsed_time(mark) / 1e3

    def _calibrated(self) -> float:
        """Return cycles per second of the kernel that holds the device back; the first run brings the clock up."""
        for _ in range(2):
            begin = self.mark(COMPUTE)
            torch.cuda._sleep(CALIBRATION_CYCLES)
            end = self.mark(COMPUTE)
            end.synchronize()
        return CALIBRATION_CYCLES / self.seconds(begin, end)
