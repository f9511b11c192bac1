"""The recommendation by what fits and what it costs, and the decision tree of report 002 beside it."""

import pytest

from prophet_moe.planning.advice import (
    KEEP_ALL,
    MORE_GPUS,
    QUANTISE,
    SLOTS,
    Alternatives,
    advise,
    tree_verdict,
)
from prophet_moe.planning.situation import MissCost, Range
from tests.unit.planning.situations import situation

NOTHING = Alternatives(None, None)
SLOW = MissCost(Range(1, 5, 9), Range(0, 0, 0))
LIMITS = (1.05, 1.2, 2.0)


@pytest.mark.parametrize(
    ("changes", "others", "kind", "words"),
    [
        ({"room_bytes": 1000.0}, NOTHING, KEEP_ALL, "nothing is copied"),
        ({"room_bytes": 730.0}, Alternatives("mxfp4", 2), SLOTS, "within 1.05 times"),
        ({}, Alternatives("mxfp4", 2), QUANTISE, "in mxfp4 all experts fit"),
        ({}, NOTHING, SLOTS, "within 2 times"),
        ({"room_bytes": 190.0, "cost": SLOW}, Alternatives(None, 4), MORE_GPUS, "4 such GPUs hold all experts"),
        ({"room_bytes": 170.0}, Alternatives(None, 4), MORE_GPUS, "a cache keeps nothing"),
        ({"room_bytes": 10.0}, NOTHING, MORE_GPUS, "lack before any expert"),
        ({"host_bytes": 1.0}, Alternatives(None, 2), MORE_GPUS, "pinned host memory"),
    ],
)
def test_advice_follows_from_memory_and_time(changes, others, kind, words):
    found = advise(situation(**changes), 100, LIMITS, others)
    assert found.kind == kind
    assert words in " ".join(found.reasons)


@pytest.mark.parametrize(
    ("batch", "experts", "room", "leaf", "agrees"),
    [
        (1, 16, 500.0, "limited benefit", True),
        (1, 64, 500.0, "optimal", True),
        (1, 64, 9000.0, "optimal", False),
        (32, 16, 99999.0, "quantisation or CPU", False),
        (64, 128, 99999.0, "with quantisation", False),
        (20, 16, 500.0, None, None),
        (1, 32, 500.0, None, None),
    ],
)
def test_tree_is_read_by_batch_and_experts(batch, experts, room, leaf, agrees):
    s = situation(batch=batch, experts=experts, room_bytes=room)
    kind = advise(situation() if agrees else situation(room_bytes=1000.0), 100, LIMITS, NOTHING)
    found = tree_verdict(s, kind)
    assert found.agrees == agrees
    assert (found.leaf is None) if leaf is None else leaf in found.leaf
    assert "report 002" in found.sentence
