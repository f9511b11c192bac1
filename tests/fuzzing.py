"""Fuzz tests: how many examples each tries, how long an example may take, and how many passed.

`FUZZ_FACTOR` multiplies the examples of every fuzz test: `make fuzz` runs the long campaign.
"""

import functools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))
"""How many times the usual number of examples is tried."""
SLOWEST_SECONDS = 2.0
"""CPU time above which an example fails."""

passed: Counter[str] = Counter()
"""Examples that passed in this process, by test."""


def fuzz(examples: int) -> Callable[[Callable], Callable]:
    """Mark the test of a `given` below as a fuzz test: count what passes, and fail examples that take too long.

    The first example of a test is not held to the limit, for it imports and compiles what the others use.
    """

    def marked(test: Callable) -> Callable:
        name = f"{test.__module__.rpartition('.')[2]}::{test.__name__}"
        inner = test.hypothesis.inner_test

        @functools.wraps(inner)
        def counted(*args: Any, **kwargs: Any) -> None:
            with _limited(SLOWEST_SECONDS if passed[name] else None):
                inner(*args, **kwargs)
            passed[name] += 1

        test.hypothesis.inner_test = counted
        few = settings(max_examples=examples * FACTOR, deadline=None, suppress_health_check=list(HealthCheck))
        return pytest.mark.fuzz(few(test))

    return marked


@contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    """Fail when the body takes more than so many seconds of CPU time: at once in Python, else when it is over."""
    if seconds is None:
        yield
        return
    started = time.process_time()
    before = signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert time.process_time() - started < seconds, "too slow"


def _stop(*_: object) -> NoReturn:
    raise AssertionError(f"an example takes more than {SLOWEST_SECONDS:g} s of CPU time")
