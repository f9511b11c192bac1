"""Speed of the expert-cache policies and of the exact LRU curve beside libCacheSim, on one core.

Needs the packages of `make gpu`.

usage: python benches/policies.py [--requests N] [--ids E] [--capacity C] [--repeats R]
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import libcachesim
import numpy as np

from prophet_moe.offload import policies
from prophet_moe.routing.reuse import lru_hits, next_uses

PEERS = {
    "lru": libcachesim.LRU,
    "fifo": libcachesim.FIFO,
    "lfu": libcachesim.LFU,
    "belady": libcachesim.Belady,
}
RECORD = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next_use", "<i8")])
"""One request of libCacheSim's oracleGeneral format; `next_use` is -1 where there is none."""
SWEEP = 20
"""Capacities that libCacheSim is asked for one by one, evenly spaced up to all ids."""
BLOCK = 1 << 20


def write_stream(path: Path, stream: np.ndarray, experts: int) -> None:
    """Write a stream as libCacheSim reads it fastest, next uses included."""
    uses = next_uses(stream, experts)
    uses[uses == len(stream)] = -1
    with path.open("wb") as file:
        for start in range(0, len(stream), BLOCK):
            rows = slice(start, start + BLOCK)
            records = np.zeros(len(stream[rows]), RECORD)
            records["id"], records["size"], records["next_use"] = stream[rows], 1, uses[rows]
            file.write(records.tobytes())


def peer_misses(path: Path, requests: int, policy: str, experts: int, capacity: int) -> int:
    """Misses by libCacheSim's bulk interface; its hash table fits the ids, which is faster than its default."""
    reader = libcachesim.TraceReader(str(path), libcachesim.TraceType.ORACLE_GENERAL_TRACE)
    cache = PEERS[policy](capacity, hashpower=experts.bit_length() + 1)
    return round(cache.process_trace(reader)[0] * requests)


def zipf(requests: int, ids: int, seed: int) -> np.ndarray:
    """Independent draws, the r-th most popular id with a probability in proportion to 1/r; popular ids are anywhere."""
    random = np.random.default_rng(seed)
    ends = np.cumsum(1 / np.arange(1, ids + 1))
    rank = np.searchsorted(ends / ends[-1], random.random(requests), side="right")
    return random.permutation(ids).astype(np.uint16)[rank]


def seconds(call: Callable[[], object]) -> float:
    """Of CPU time: other programs' work on the same core does not count."""
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(name: str, requests: int, repeats: int, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """Print the medians of both, taken in turns, and the ratio's median and range over the turns."""
    turns = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    mine, peer = (requests / statistics.median(times) / 1e6 for times in zip(*turns, strict=True))
    ratios = [slow / fast for fast, slow in turns]
    print(
        f"{name:24} {mine:7.1f} M requests/s   libCacheSim {peer:6.2f}"
        f"   ratio {statistics.median(ratios):5.1f} ({min(ratios):.1f}..{max(ratios):.1f})",
        flush=True,
    )


def main() -> None:
    """Check that both miss equally often, then time them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000_000)
    parser.add_argument("--ids", type=int, default=1536)
    parser.add_argument("--capacity", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    requests, ids, capacity = arguments.requests, arguments.ids, arguments.capacity
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    stream = zipf(requests, ids, seed=0)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "stream.oracleGeneral"
        write_stream(path, stream, ids)
        for policy in policies.POLICIES:

            def ours(policy: str = policy) -> int:
                return policies.misses(policy, stream, ids, capacity)

            def theirs(policy: str = policy) -> int:
                return peer_misses(path, requests, policy, ids, capacity)

            if ours() != theirs():
                raise SystemExit(f"{policy}: {ours():,} misses, libCacheSim {theirs():,}")
            compare(f"{policy}, capacity {capacity}", requests, arguments.repeats, ours, theirs)

        sizes = np.linspace(ids / SWEEP, ids, SWEEP).astype(int).tolist()

        def curve() -> list[int]:
            hits = lru_hits(stream, ids)
            return [requests - int(hits[size - 1]) for size in sizes]

        def sweep() -> list[int]:
            return [peer_misses(path, requests, "lru", ids, size) for size in sizes]

        if curve() != sweep():
            raise SystemExit(f"LRU curve: {curve()}, libCacheSim {sweep()}")
        compare(f"all {ids} sizes against {SWEEP}", requests, arguments.repeats, curve, sweep)


if __name__ == "__main__":
    main()
