"""How long steps take for what their lookups found: a device, one link, and perhaps a CPU that computes misses.

A layer first computes everything but routed experts. Then it serves its ask: experts in the cache are computed, then
missing ones, each once its copy has arrived; copies go one after another, and each costs the host an overhead. With a
CPU, the misses that do not enter the cache are computed there, one after another, beside the device, and the layer
waits for the later of the two. In the background, all misses are computed on the CPU, and what enters the cache is
copied beside: a step lasts at least as long as its copies.

Of several devices each has a link of its own, and computes its own experts beside the others; a layer waits for the
last of them. The layer's other work takes as long as on one. What the devices send one another is not counted.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.errors import Fault, UserError
from prophet_moe.offload.demand.lookups import ADMITTED, HIT, Admission, Integers, Lookups
from prophet_moe.offload.simulator.batching import LayerAccesses

Floats = NDArray[np.float64]
TOLERANCE = 1e-9
"""Share by which two sums of floating-point seconds may differ."""


@dataclass(frozen=True)
class Costs:
    """What a device, its link and its host take, in seconds. L layers."""

    non_expert_seconds: Floats
    """(L,): everything in a layer but its routed experts."""
    expert_seconds: Floats
    """(B + 1,): one expert that computes 0 to B tokens on the device."""
    copy_seconds: Floats
    """(L,): a copy of one expert of a layer, without overhead."""
    cpu_seconds: Floats | None = None
    """(L,): one missing expert of a layer on the CPU; None where the CPU computes none."""
    background: bool = False
    """Whether what enters the cache is copied beside, while the CPU computes all misses."""
    miss_overhead_seconds: float = 0.0
    """What the host takes for each copy."""
    step_overhead_seconds: float = 0.0
    """What the host takes for each step."""
    devices: int = 1
    """Devices that experts are spread over, each with a link of its own."""

    def __post_init__(self) -> None:
        """Refuse seconds below 0 and background copies without a CPU with a UserError."""
        optional = np.zeros(1) if self.cpu_seconds is None else self.cpu_seconds
        for values in (self.non_expert_seconds, self.expert_seconds, self.copy_seconds, optional):
            if not (np.isfinite(values) & (values >= 0)).all():
                raise UserError("times", "got seconds below 0 or without end, expected finite ones", "Correct them.")
        for name in ("miss_overhead_seconds", "step_overhead_seconds"):
            if not 0 <= getattr(self, name) < np.inf:
                raise UserError(name, f"got {getattr(self, name)}, expected seconds from 0 on", "Correct it.")
        if self.devices < 1:
            raise UserError("devices", f"got {self.devices}, expected at least 1", "Correct it.")
        if self.background and self.cpu_seconds is None:
            raise UserError("background", "copies beside need a CPU that computes the misses", "State its bandwidth.")

    def limits(self, admission: Admission, widest: int) -> Integers:
        """(widest + 1,): how many of so many misses of an ask are to enter the cache, so that the layer ends soonest.

        Of m misses, f are copied and m - f computed on the CPU, both at once: f is what makes the later one earliest,
        about m q* with q* = link / (link + CPU) in bandwidths. Without a CPU, and in the background, as admitted.
        """
        allowed = admission.limits(widest)
        if self.cpu_seconds is None or self.background:
            return allowed
        copy = (float(self.copy_seconds.mean()) + self.miss_overhead_seconds) / self.devices
        cpu = float(self.cpu_seconds.mean())
        return np.minimum(allowed, [fetched_of(misses, copy, cpu) for misses in range(widest + 1)])


def fetched_of(misses: int, copy_seconds: float, cpu_seconds: float) -> int:
    """Return how many of the misses to fetch while the CPU computes the others; the fewest of equally good numbers."""
    fetched = np.arange(misses + 1)
    return int(np.argmin(np.maximum(fetched * copy_seconds, (misses - fetched) * cpu_seconds)))


@dataclass(frozen=True)
class Served:
    """What a run took, in seconds and experts."""

    step_seconds: Floats
    """(T,): seconds of each step."""
    compute_seconds: float
    """Seconds that the device computed."""
    copy_seconds: float
    """Seconds that the link and the host took for copies."""
    cpu_seconds: float
    """Seconds that the CPU computed misses."""
    copies: int
    """Experts copied."""
    on_cpu: int
    """Misses computed on the CPU."""

    @property
    def seconds(self) -> float:
        """Return the seconds of all steps together."""
        return float(self.step_seconds.sum())


def serve(
    accesses: LayerAccesses,
    found: Lookups,
    costs: Costs,
    copies: Floats | None = None,
    extra: Floats | None = None,
    experts: int = 1,
    others: Floats | None = None,
    on_cpu: Floats | None = None,
) -> Served:
    """Return what steps take whose requests became what `found` says, and check what must hold.

    `copies` (requests,) replace `copy_seconds`, where some experts come from farther away, `on_cpu` (requests,)
    `cpu_seconds`, where it matters how many tokens an expert computes; `extra` (T L,) are seconds
    that a layer waits for other bytes before it begins. `others` (T L,) replace `non_expert_seconds`, where steps
    differ. Of several devices, expert e of the `experts` of a layer is on device e mod devices.
    """
    layers = len(costs.non_expert_seconds)
    steps = (len(accesses.of_layer) - 1) // layers
    served_by = served_requests(found, costs)
    copies = costs.copy_seconds[places_of(accesses) % layers] if copies is None else copies
    extra = np.zeros(steps * layers) if extra is None else extra
    others = np.tile(costs.non_expert_seconds, steps) if others is None else others
    if on_cpu is None:
        cpu_seconds = np.zeros(layers) if costs.cpu_seconds is None else costs.cpu_seconds
        on_cpu = cpu_seconds[places_of(accesses) % layers]
    seconds, busy = np.zeros(steps), np.zeros(3)
    _serve(
        accesses.of_layer,
        accesses.starts,
        accesses.tokens,
        served_by,
        accesses.ids.astype(np.int64) % experts % costs.devices,
        copies,
        extra,
        others,
        costs.expert_seconds,
        on_cpu,
        layers,
        costs.background,
        costs.miss_overhead_seconds,
        costs.step_overhead_seconds,
        np.zeros((3, costs.devices)),
        seconds,
        busy,
    )
    copied, computed = ((served_by & bit).astype(bool) for bit in (COPIED, ON_CPU))
    return checked(Served(seconds, *busy.tolist(), int(copied.sum()), int(computed.sum())), costs, float(extra.sum()))


def places_of(accesses: LayerAccesses) -> Integers:
    """(requests,): the layer-step t L + l of each request."""
    of_ask = np.repeat(np.arange(len(accesses.of_layer) - 1), np.diff(accesses.of_layer))
    return np.repeat(of_ask, np.diff(accesses.starts))


ON_DEVICE, COPIED, ON_CPU = 1, 2, 4
"""Bits of how a request is served: computed by the device, copied, computed by the CPU."""


def served_requests(found: Lookups, costs: Costs) -> NDArray[np.uint8]:
    """(requests,): how each request is served, in bits."""
    hit, admitted = found.fates == HIT, found.fates == ADMITTED
    if costs.cpu_seconds is None:
        return np.where(hit, ON_DEVICE, ON_DEVICE | COPIED).astype(np.uint8)
    missed = np.where(admitted, (ON_CPU if costs.background else ON_DEVICE) | COPIED, ON_CPU)
    return np.where(hit, ON_DEVICE, missed).astype(np.uint8)


def checked(run: Served, costs: Costs, extra: float) -> Served:
    """Return the run if its time is conserved, else a Fault: nothing lasts less than its busiest part on all devices,
    or more than all parts one after another.
    """
    parts = run.compute_seconds, run.copy_seconds, run.cpu_seconds
    overhead = costs.step_overhead_seconds * len(run.step_seconds) + extra
    slack = TOLERANCE * (sum(parts) + overhead)
    if not max(parts) / costs.devices - slack <= run.seconds <= sum(parts) + overhead + slack:
        raise Fault(f"demand: {run.seconds} s do not lie between the busiest of {parts} and their sum")
    return run


@njit(cache=True)
def _serve(
    of_layer,
    starts,
    tokens,
    served_by,
    owners,
    copies,
    extra,
    others,
    expert_seconds,
    on_cpu,
    layers,
    background,
    miss_overhead,
    step_overhead,
    clocks,
    seconds,
    busy,
):
    # By device: when it has computed, when its link is free, how long it copied in the background in this step.
    device, link, copying = clocks
    for step in range(len(seconds)):
        now = step_overhead
        copying[:] = 0
        for layer in range(layers):
            place = step * layers + layer
            now += others[place] + extra[place]
            busy[0] += others[place]
            for ask in range(of_layer[place], of_layer[place + 1]):
                device[:] = link[:] = now
                cpu = now
                for request in range(starts[ask], starts[ask + 1]):
                    if served_by[request] == ON_DEVICE:
                        device[owners[request]] += expert_seconds[tokens[request]]
                        busy[0] += expert_seconds[tokens[request]]
                for request in range(starts[ask], starts[ask + 1]):
                    how, owner = served_by[request], owners[request]
                    if how & COPIED:
                        copy = copies[request] + miss_overhead
                        busy[1] += copy
                        if background:
                            copying[owner] += copy
                        else:
                            link[owner] += copy
                            device[owner] = max(device[owner], link[owner]) + expert_seconds[tokens[request]]
                            busy[0] += expert_seconds[tokens[request]]
                    if how & ON_CPU:
                        cpu += on_cpu[request]
                        busy[2] += on_cpu[request]
                now = max(device.max(), cpu)
        seconds[step] = max(now, copying.max())
