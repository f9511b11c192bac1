"""Misses of every replacement policy are as many as libCacheSim's on the same streams."""

from pathlib import Path

import numpy as np
import pytest
from benches.policies import PEERS, peer_misses, write_stream, zipf

from prophet_moe.offload.policies import POLICIES, misses
from prophet_moe.offload.simulator.batching import accesses_of, decode_batches
from prophet_moe.routing.reuse import lru_hits
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.trace import sequence_starts

TRACES = Path(__file__).resolve().parents[2] / "resources/traces"
IDS = 300


def uniform() -> tuple[np.ndarray, int]:
    """Nothing is popular: ties decide what LFU evicts."""
    return np.random.default_rng(1).integers(IDS, size=50_000).astype(np.uint16), IDS


def popular() -> tuple[np.ndarray, int]:
    """Independent draws by Zipf's law."""
    return zipf(200_000, IDS, seed=2), IDS


def recorded(batch: int) -> tuple[np.ndarray, int]:
    """All layers of a recorded trace, for one cache that they share."""
    trace = read_trace(TRACES / "small-6x64-top8").described()
    some, experts = trace.select(trace.sequence < 20), trace.router.experts
    accessed = [
        accesses_of(part, deduplicated=True).ids
        for part in decode_batches(some.experts, sequence_starts(some), batch, experts)
    ]
    return np.concatenate(accessed), len(trace.router.layers) * experts


STREAMS = {
    "uniform": uniform,
    "popular": popular,
    "recorded": lambda: recorded(1),
    "recorded, batch 8": lambda: recorded(8),
}


@pytest.fixture(scope="module", params=list(STREAMS))
def case(request, tmp_path_factory) -> tuple[np.ndarray, int, Path]:
    """A stream, the number of its ids, and the file from which libCacheSim reads it."""
    stream, ids = STREAMS[request.param]()
    path = tmp_path_factory.mktemp("stream") / "stream.oracleGeneral"
    write_stream(path, stream, ids)
    return stream, ids, path


@pytest.mark.parametrize("policy", list(POLICIES))
def test_misses_are_equal(case, policy):
    stream, ids, path = case
    assert PEERS.keys() == POLICIES.keys()
    for capacity in (1, 2, 7, ids // 16, ids // 4, ids // 2, ids - 1, ids):
        assert misses(policy, stream, ids, capacity) == peer_misses(path, len(stream), policy, ids, capacity), capacity


def test_the_lru_curve_is_equal(case):
    stream, ids, path = case
    hits = lru_hits(stream, ids)
    for capacity in range(1, ids + 1, ids // 10):
        assert len(stream) - hits[capacity - 1] == peer_misses(path, len(stream), "lru", ids, capacity)
