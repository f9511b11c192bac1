"""CPU time and peak memory of `prophet-moe trace describe` for traces of any length, beside describing all in memory.

usage: python benches/describe_trace.py [--ids N ...] [--whole] [--folder DIR]
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq

from prophet_moe.files import atomic_write
from prophet_moe.routing import store
from prophet_moe.routing.trace import DECODE, PHASES, Origin, Router, Trace

ROUTER = Router("bench", 64, 6, tuple(range(26)))
SEQUENCE_TOKENS = 500
BLOCK_TOKENS = 25_000
COMMAND = "from prophet_moe.cli.main import main; main()"
WHOLE = """
import sys
from pathlib import Path
from prophet_moe.routing import long_traces, store
from prophet_moe.routing.summary import summarise_described
folder = Path(sys.argv[1])
found = long_traces.describe(folder, store.read_metadata(folder), whole=2**62)
summarise_described("bench", found.trace, found.totals)
"""


def write_synthetic(folder: Path, tokens: int) -> None:
    """Write a trace of `tokens` decode tokens block by block: each token and layer chooses one of 2^16 sets."""
    random = np.random.default_rng(0)
    order = random.random((2**16, ROUTER.experts)).argpartition(ROUTER.top_k, axis=1)
    sets = order[:, : ROUTER.top_k].astype(np.uint16)
    metadata = store.describe(ROUTER, Origin("a bench", "none")) | {
        "kind": "trace",
        "ranked": True,
        "tokens": tokens,
        "sequences": -(-tokens // SEQUENCE_TOKENS),
        "tokens_by_phase": dict(zip(PHASES, (0, tokens), strict=True)),
    }
    schema = store.schema_of(ROUTER, metadata, with_tokens=False)
    path = folder / store.TRACE
    with atomic_write(path) as partial, pq.ParquetWriter(partial, schema, **store.PARQUET) as writer:
        for start in range(0, tokens, BLOCK_TOKENS):
            place = np.arange(start, min(start + BLOCK_TOKENS, tokens), dtype=np.int32)
            experts = sets[random.integers(len(sets), size=(len(place), len(ROUTER.layers)))]
            sequence, position = np.divmod(place, np.int32(SEQUENCE_TOKENS))
            phase = np.full(len(place), DECODE, np.uint8)
            block = Trace(ROUTER, sequence, position, phase, experts, True, Origin("a bench", "none"))
            writer.write_batch(store.batch_of(block, slice(None), schema))
    store.seal(folder, metadata, store.TRACE)


def measure(name: str, arguments: Sequence[str]) -> None:
    """Run Python with `arguments` and print the CPU time and the peak memory of that process."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name} ended with status {status}")
    seconds, gibibytes = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20
    print(f"{name:40} {seconds:6.1f} s of CPU, peak {gibibytes:5.2f} GiB", flush=True)


def main() -> None:
    """Write and describe a trace of each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=float, nargs="+", default=[93e6], help="expert ids of each trace")
    parser.add_argument("--whole", action="store_true", help="describe all tokens in memory too")
    parser.add_argument("--folder", type=Path, help="where the traces are written for a while")
    arguments = parser.parse_args()
    for ids in arguments.ids:
        tokens = round(ids / len(ROUTER.layers) / ROUTER.top_k)
        with TemporaryDirectory(dir=arguments.folder) as folder:
            write_synthetic(Path(folder), tokens)
            size = (Path(folder) / store.TRACE).stat().st_size / 2**30
            print(f"{ids:,.0f} ids, {tokens:,} tokens, {ids * 2 / 2**30:.2f} GiB of ids, {size:.2f} GiB on disk")
            measure("prophet-moe trace describe", ["-c", COMMAND, "trace", "describe", folder])
            if arguments.whole:
                measure("all tokens in memory", ["-c", WHOLE, folder])


if __name__ == "__main__":
    main()
