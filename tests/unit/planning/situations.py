"""Situations for the tests of the planner: small numbers, with times or without."""

from dataclasses import replace

from hypothesis import strategies as st

from prophet_moe.planning.curve import HitCurve, curve_of
from prophet_moe.planning.situation import MissCost, Range, Situation


def curve(experts: int = 16, top_k: int = 2, factor: float = 1.5) -> HitCurve:
    """A curve with two points."""
    points = [(top_k, 0.3), (experts / 2, 0.8)]
    return curve_of(experts, top_k, points, "made up", factor)


def situation(**changes) -> Situation:
    """16 experts of 10 bytes in 4 layers, 2 of them a token, 500 bytes of room, a byte of cache a token."""
    given = Situation(
        experts=16,
        top_k=2,
        layers=4,
        expert_bytes=10.0,
        batch=1,
        unique=2.0,
        room_bytes=500.0,
        cached_bytes=lambda tokens: float(tokens),
        native_context=400,
        curve=curve(),
        cost=MissCost(Range(0.5, 1.0, 3.0), Range(0.0, 0.0, 0.2)),
        resident=lambda tokens: Range(8.0, 10.0 + tokens / 100, 14.0),
    )
    return replace(given, **changes)


@st.composite
def situations(draw) -> Situation:
    """Any situation that can be."""
    experts = draw(st.integers(2, 24))
    top_k = draw(st.integers(1, experts))
    unique = draw(st.floats(top_k, experts))
    rates = sorted(draw(st.lists(st.floats(0, 1), min_size=1, max_size=5)))
    slots = sorted(draw(st.lists(st.floats(top_k, experts), min_size=len(rates), max_size=len(rates))))
    made = curve_of(experts, top_k, list(zip(slots, rates, strict=True)), "made up", draw(st.floats(1, 4)))
    return situation(
        experts=experts,
        top_k=top_k,
        layers=draw(st.integers(1, 5)),
        batch=draw(st.integers(1, 4)),
        unique=unique,
        room_bytes=draw(st.floats(-50, 2000)),
        native_context=draw(st.integers(1, 500)),
        curve=made,
        cost=MissCost(Range(0.1, draw(st.floats(0.1, 2)), 2.0), Range(0.0, draw(st.floats(0, 0.5)), 0.5)),
    )
