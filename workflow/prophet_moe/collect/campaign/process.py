"""A command in a process group of its own, which ends with it or at its limit."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prophet_moe.errors import from_os_error

STILL_RUNNING = "still running at its limit"


@dataclass(frozen=True)
class Ended:
    """How a command ended: its seconds, and why it did not end well; empty where it did."""

    seconds: float
    reason: str

    @property
    def cut_off(self) -> bool:
        """Return whether the command was killed at its limit."""
        return self.reason == STILL_RUNNING


def run(command: Sequence[str], limit: float, log: Path, keep_open: Sequence[int] = ()) -> Ended:
    """Run `command` for `limit` seconds at most; what it writes goes to the file `log`.

    It leads a process group, which is killed when it ends, at its limit, and when anything interrupts the waiting: no
    process of it outlives the call. `keep_open` are file descriptors that it inherits.
    """
    begun = time.monotonic()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("wb")
    except OSError as error:
        raise from_os_error(log, error) from None
    with stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=keep_open,
        )
        cut_off = False
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            cut_off = True
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    reason = STILL_RUNNING if cut_off else _why(process.returncode, log)
    return Ended(time.monotonic() - begun, reason)


def _why(code: int, log: Path) -> str:
    """Return why a command with this exit code ended: the signal that killed it, else the last line that it wrote."""
    if code == 0:
        return ""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return last_line(log) or f"ended with exit code {code}"


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty; a carriage return ends a line too, as progress bars write it."""
    lines = [line.strip() for line in re.split(r"[\r\n]", log.read_text(encoding="utf-8", errors="replace"))]
    return next((line.removeprefix("error: ") for line in reversed(lines) if line), "")
