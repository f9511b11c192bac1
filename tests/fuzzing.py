"""Fuzz tests: how many examples each tries, how long an example may take, and how many passed.

`FUZZ_FACTOR` multiplies the examples of every fuzz test: `make fuzz` runs the long campaign.
"""

import copy
import functools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from prophet_moe.routing.trace import DECODE, PREFILL, Counts, Trace

FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))
"""How many times the usual number of examples is tried."""
SLOWEST_SECONDS = 2.0
"""CPU time above which an example fails."""

passed: Counter[str] = Counter()
"""Examples that passed in this process, by test."""


def fuzz(examples: int) -> Callable[[Callable], Callable]:
    """Mark the test of a `given` below as a fuzz test: count what passes, and fail examples that take too long.

    The limit holds where FUZZ_FACTOR is above 1: `make fuzz` compiles the kernels first. The first example of a test is
    not held to it, for it imports what the others use.
    """

    def marked(test: Callable) -> Callable:
        name = f"{test.__module__.rpartition('.')[2]}::{test.__name__}"
        inner = test.hypothesis.inner_test

        @functools.wraps(inner)
        def counted(*args: Any, **kwargs: Any) -> None:
            with _limited(SLOWEST_SECONDS if passed[name] and FACTOR > 1 else None):
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


def assert_sound(found: Trace | Counts) -> None:
    """What was read can be: own ids, distinct in a token, positions that ascend; no expert above 1/k of the choices."""
    router = found.router
    assert 0 < router.top_k <= router.experts and list(router.layers) == sorted(set(router.layers))
    if isinstance(found, Counts):
        choices = found.counts.sum(axis=2)
        assert (found.counts >= 0).all() and choices.sum() > 0
        assert (found.counts * router.top_k <= choices[:, :, None]).all()
        return
    assert found.experts.shape == (len(found), len(router.layers), router.top_k) and len(found) > 0
    assert (found.experts < router.experts).all() and np.isin(found.phase, (PREFILL, DECODE)).all()
    assert (np.diff(np.sort(found.experts.astype(int), axis=2), axis=2) > 0).all()
    assert (found.position >= 0).all() and (found.sequence >= 0).all()
    step = np.diff(found.sequence)
    assert ((step > 0) | ((step == 0) & (np.diff(found.position) > 0))).all()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.integers()
    | st.sampled_from([2**31, 2**53, 2**63, 2**64, -(2**31), 10**12])
    | st.floats()
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
"""What may stand where something else is expected."""


@st.composite
def changed(draw: st.DrawFn, document: Any, values: st.SearchStrategy = VALUES) -> Any:
    """A JSON-like document in which one to three values are replaced, left out, given twice or off by one."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        if not places:
            break
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        change = draw(st.sampled_from(["replace", "leave out", "again", "off by one"]))
        if change == "leave out" and len(places) > 1:
            del holder[key]
        elif change == "again" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif change == "off by one" and type(holder[key]) is int:
            holder[key] += draw(st.sampled_from([-1, 1]))
        else:
            holder[key] = draw(values)
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every value inside a document, as what holds it and its key there."""
    keys = document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in keys:
        yield document, key
        yield from _places(document[key])
