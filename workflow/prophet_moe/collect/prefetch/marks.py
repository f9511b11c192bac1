"""The moments of one step, and the seconds between them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prophet_moe.collect import machine
from prophet_moe.collect.prefetch.queues import HostQueues


@dataclass
class Marks:
    """The moments of one step: what each layer and each copy began and ended."""

    begin: Any
    started: list[Any] = field(default_factory=list)
    """Moment before the attention of each layer."""
    asked: list[Any] = field(default_factory=list)
    """Moment after the attention of each layer, when its router asks."""
    waits: list[tuple[int, Any, Any]] = field(default_factory=list)
    """Layer, before and after the compute stream waited for a copy."""
    awaited: list[tuple[int, Any]] = field(default_factory=list)
    """Layer, and the end of the copy of a prefetched expert that it uses."""
    copies: list[tuple[str, int, Any, Any]] = field(default_factory=list)
    """Kind, layer, begin and end of each copy."""
    layers_host_late: int = 0
    """Layers that the device had started before the host had queued them whole."""
    computed: Any = None
    end: Any = None


def layer_times(queues: HostQueues, marks: Marks) -> dict[str, NDArray[np.float64]]:
    """Return the seconds per layer, and how many prefetched experts came late; without a GPU, what has a meaning there.

    A wait for a copy that has ended already counts as a stall of the time between two events: about a microsecond.
    """

    def at(mark: Any) -> float:
        return queues.seconds(marks.begin, mark)

    started = np.array([at(mark) for mark in [*marks.started, marks.computed]])
    asked = np.array([at(mark) for mark in marks.asked])
    names = ("demand_copy_seconds", "prefetch_copy_seconds", "stall_seconds", "prefetches_late")
    times = {name: np.zeros(len(asked)) for name in names}
    for stream, layer, begin, end in marks.copies:
        times[f"{stream}_copy_seconds"][layer] += at(end) - at(begin)
    for layer, before, after in marks.waits:
        times["stall_seconds"][layer] += at(after) - at(before)
    for layer, arrived in marks.awaited:
        times["prefetches_late"][layer] += at(arrived) > asked[layer]
    times |= {"seconds": np.diff(started), "attention_seconds": asked - started[:-1]}
    if not machine.on_gpu():
        del times["stall_seconds"], times["prefetches_late"]
    return times


def step_times(queues: HostQueues, marks: Marks, host_seconds: float) -> dict[str, float]:
    """Return the seconds of the step and, on a GPU, of the host that queued it, and how often the device was ahead."""
    seconds = queues.seconds(marks.begin, marks.end)
    if not machine.on_gpu():
        return {"seconds": seconds}
    return {
        "seconds": seconds,
        "drain_seconds": seconds - queues.seconds(marks.begin, marks.computed),
        "host_seconds": host_seconds,
        "layers_host_late": marks.layers_host_late,
    }
