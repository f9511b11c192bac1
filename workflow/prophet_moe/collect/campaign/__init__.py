"""All measurements of a GPU within a budget of time, one after another, each in a process of its own.

A crash, a lack of memory or an overrun of one phase leaves the others whole. What a phase has measured is kept in
parts, so that another call goes on, and does nothing where all is whole.
"""

import fcntl
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prophet_moe.collect.campaign.phase import (
    CUT_OFF,
    FAILED,
    INTERRUPTED,
    LEFT_OUT,
    MEASURED,
    THERE,
    WAITING,
    Phase,
)
from prophet_moe.collect.campaign.plan import Plan, Variant, read
from prophet_moe.collect.campaign.process import last_line
from prophet_moe.collect.campaign.process import run as run_command
from prophet_moe.collect.campaign.schedule import choose
from prophet_moe.collect.plan import read_as
from prophet_moe.errors import UserError, from_os_error
from prophet_moe.files import write_json
from prophet_moe.hardware.device import has_memory, is_named, words_of
from prophet_moe.units import GIB

__all__ = ["described", "name_of", "planned", "probe", "read", "run"]

FOLDER, SUMMARY = "campaign", "campaign.json"
"""Logs and the summary are in OUT/campaign/<GPU>."""
COMMAND = (sys.executable, "-m", "prophet_moe.collect")
GPUS = Path("config/gpus.yaml")
PROBE_SECONDS = 120.0


def probe() -> dict[str, Any]:
    """Return what `collect machine` says of this machine.

    It runs in a process of its own: a CUDA context of this one would take memory that a phase measures.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "machine.log"
        ended = run_command([*COMMAND, "machine"], PROBE_SECONDS, log)
        if ended.reason:
            raise UserError("machine", ended.reason.rstrip("."), "Nothing can be measured.")
        return json.loads(last_line(log))


def name_of(machine: dict[str, Any], gpus: Path = GPUS) -> str:
    """Return the name in config/gpus.yaml of the GPU of a machine, "cpu" without one; an unknown GPU is a UserError."""
    if machine["device"] == "cpu":
        return "cpu"
    for name, spec in read_as(dict[str, dict[str, Any]], gpus).items():
        visible = spec.get("memory_visible_gib")
        named = is_named(machine["device"], words_of(name, spec.get("device_words")))
        if named and isinstance(visible, (int, float)) and has_memory(machine["memory_bytes"], round(visible * GIB)):
            return name
    size = f"{machine['memory_bytes'] / GIB:.1f} GiB"
    problem = f"{machine['device']} with {size} is none of {gpus}"
    raise UserError("machine", problem, f"Add it to {gpus}, or name its folder with --name.")


def phases_of(plan: Plan, name: str, out: Path) -> list[Phase]:
    """Return the phases of a campaign on the GPU `name`, with what there is of them in `out`."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError("--name", f"got {name!r}, expected letters, digits, '.', '-' and '_'", "Correct it.")
    phases = [Phase(kind, out / kind / name, variants) for kind, variants in plan.phases.items()]
    for phase in phases:
        phase.look(THERE)
    return phases


def planned(plan: Plan, name: str, out: Path, seconds: float) -> list[str]:
    """Return the lines of a dry run: what a campaign of so many seconds would do, in its order."""
    phases = phases_of(plan, name, out)
    chosen = choose(_waiting(phases, plan), seconds)
    lines = [f"{name}: {sum(variant.seconds for variant in chosen.values()):.0f} of {seconds:.0f} s are planned"]
    for phase in phases:
        if phase.kind in chosen:
            variant = chosen[phase.kind]
            goes_on = f", goes on at part {phase.progress.told()}" if phase.plan else ""
            lines.append(f"{phase.kind:<10}about {variant.seconds:.0f} s{goes_on}: {variant.file}")
        elif phase.state == WAITING:
            lines.append(f"{phase.kind:<10}if time is left: {_shortest(phase, plan).file}")
        else:
            lines.append(f"{phase.kind:<10}{phase.state}{f': {phase.reason}' if phase.reason else ''}")
    return lines


def run(plan: Plan, name: str, out: Path, seconds: float, machine: dict[str, Any], begun: float) -> dict[str, Any]:
    """Run a campaign and return its summary, which is also written to OUT/campaign/<name>/campaign.json.

    Parameters
    ----------
    plan : Plan
        The phases, in order of worth.
    name : str
        The GPU's name, that of the folders below OUT/<phase>.
    out : Path
        Where measurements go.
    seconds : float
        The budget.
    machine : dict
        What `probe` said, for the summary.
    begun : float
        When the budget began to be spent, by `time.monotonic`.
    """
    logs, deadline = out / FOLDER / name, begun + seconds
    with _only_one(out / FOLDER) as lock, _stopped_in_order():
        phases = phases_of(plan, name, out)
        running = None
        try:
            while step := next_step(phases, plan, deadline - time.monotonic()):
                running, variant, limit = step
                about = f"about {variant.seconds:.0f} s, {limit:.0f} s at most"
                print(f"{running.kind}: {variant.file}, {about}; log: {logs / running.kind}.log", file=sys.stderr)
                _execute(running, variant, limit, logs, lock)
                print(f"{running.kind}: {_told(running)}", file=sys.stderr)
        except KeyboardInterrupt:
            if running and not running.whole:
                running.state, running.reason = INTERRUPTED, "stopped by a signal; another call goes on"
                running.look(MEASURED)
            _leave_out(phases, lambda _: "the campaign was stopped before")
        left = max(deadline - time.monotonic(), 0)
        _leave_out(phases, lambda phase: f"takes about {_shortest(phase, plan).seconds:.0f} s, {left:.0f} s were left")
        summary = {
            "name": name,
            "whole": all(phase.whole for phase in phases),
            "minutes": seconds / 60,
            "seconds": round(time.monotonic() - begun, 1),
            "machine": machine,
            "phases": [phase.summary() for phase in phases],
        }
        write_json(logs / SUMMARY, summary)
        return summary


def next_step(phases: Sequence[Phase], plan: Plan, left: float) -> tuple[Phase, Variant, float] | None:
    """Return the phase to run now, by which variant, and its limit in seconds; None where there is nothing to do.

    The first waiting phase for which there is time may take what the others do not need. When none is left to wait,
    one that was cut off, or for which there was no time, may take all that is left: its parts are kept.
    """
    chosen = choose(_waiting(phases, plan), left)
    if chosen:
        kind, variant = next(iter(chosen.items()))
        phase = next(phase for phase in phases if phase.kind == kind)
        return phase, variant, left - sum(other.seconds for name, other in chosen.items() if name != kind)
    if left < plan.start_seconds:
        return None
    unfinished = next((phase for phase in phases if phase.state in (WAITING, CUT_OFF)), None)
    return (unfinished, _shortest(unfinished, plan), left) if unfinished else None


def described(summary: dict[str, Any]) -> list[str]:
    """Return the lines that tell of a campaign's summary."""
    phases = summary["phases"]
    whole = sum(phase["state"] in (THERE, MEASURED) for phase in phases)
    spent = f"{summary['seconds']:.0f} of {summary['minutes'] * 60:.0f} s"
    lines = [f"{summary['name']}: {whole} of {len(phases)} phases are whole after {spent}"]
    for phase in phases:
        notes = [phase["plan"], f"parts {phase['parts']}" if phase["parts"] else "", phase["reason"]]
        how = f"{phase['state']}{' (resumed)' if phase['resumed'] else ''}"
        lines.append(f"{phase['phase']:<10}{how:<20}{phase['seconds']:>7.1f} s  {'; '.join(filter(None, notes))}")
    return lines


def _waiting(phases: Sequence[Phase], plan: Plan) -> dict[str, list[Variant]]:
    return {phase.kind: phase.choices(plan.start_seconds) for phase in phases if phase.state == WAITING}


def _shortest(phase: Phase, plan: Plan) -> Variant:
    return min(phase.choices(plan.start_seconds), key=lambda variant: variant.seconds)


def _execute(phase: Phase, variant: Variant, limit: float, logs: Path, lock: int) -> None:
    """Run one phase in a process of its own, and note how it ended."""
    phase.resumed = phase.resumed or phase.progress.done > 0
    phase.plan = variant.file
    command = [*COMMAND, phase.kind, "--plan", variant.file, "--out", str(phase.folder)]
    begun = time.monotonic()
    try:
        ended = run_command(command, limit, logs / f"{phase.kind}.log", keep_open=(lock,))
    finally:
        phase.seconds += time.monotonic() - begun
    if ended.cut_off:
        phase.state, phase.reason = CUT_OFF, f"stopped after {limit:.0f} s, its share of the time; another call goes on"
    else:
        phase.state, phase.reason = FAILED, ended.reason or "ended without a result"
    phase.look(MEASURED)


def _told(phase: Phase) -> str:
    return f"{phase.state} after {phase.seconds:.0f} s{f': {phase.reason}' if phase.reason else ''}"


def _leave_out(phases: Sequence[Phase], reason: Callable[[Phase], str]) -> None:
    """Leave out the phases that still wait, each for its reason."""
    for phase in phases:
        if phase.state == WAITING:
            phase.state, phase.reason = LEFT_OUT, reason(phase)


@contextmanager
def _only_one(folder: Path) -> Iterator[int]:
    """Hold the lock of `folder`, whose descriptor the phases inherit; that another campaign holds it is a UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise from_os_error(folder, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    except BlockingIOError:
        raise UserError(str(folder), "another campaign is running there", "Wait for its end, or stop it.") from None
    finally:
        os.close(descriptor)


@contextmanager
def _stopped_in_order() -> Iterator[None]:
    """Treat the signals that end a job or a lost connection as Ctrl-C, unless they are ignored, as under nohup."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    caught = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
