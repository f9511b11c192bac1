"""Waits of tests for what another process does, which end by themselves."""

import subprocess
import time
from collections.abc import Callable

ATTEMPTS, PAUSE = 12_000, 0.01
"""How often a condition is asked for, and the seconds between: two minutes and what asking takes."""


def wait_until(met: Callable[[], bool], running: subprocess.Popen) -> None:
    """Wait until a condition holds; fail where the process ends before, or where it never does."""
    for _ in range(ATTEMPTS):
        if met():
            return
        assert running.poll() is None or met(), "the process ended before it could be stopped"
        time.sleep(PAUSE)
    raise AssertionError("what is waited for never came")
