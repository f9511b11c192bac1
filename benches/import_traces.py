"""Speed of importing a folder of CSV files (format prompt_csv), beside the plain reader that goes row by row.

usage: python benches/import_traces.py [--files N] [--tokens T] [--layers L]
"""

import argparse
import csv
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from prophet_moe.routing import store
from prophet_moe.routing.importers import import_source
from prophet_moe.routing.importers.prompt_csv import COLUMNS
from prophet_moe.routing.trace import Origin, Router, Trace

PLAIN = Path(__file__).parents[1] / "tests/plain_prompt_csv.py"
EXPERTS, TOP_K = 64, 6
ORIGIN = Origin("a bench", "none")


def write_prompts(folder: Path, files: int, tokens: int, router: Router) -> None:
    """Write prompts of `tokens` tokens with uniform choices."""
    random = np.random.default_rng(0)
    for number in range(files):
        shape = (len(router.layers), tokens, router.experts)
        ids = random.random(shape, np.float32).argpartition(router.top_k, axis=2)[:, :, : router.top_k]
        with (folder / f"prompt_{number:05}.csv").open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            rows.writerow(COLUMNS)
            for layer, chosen in zip(router.layers, ids.tolist(), strict=True):
                rows.writerows([layer, 0, f"Ġtoken{place}", chosen[place]] for place in range(tokens))


def written(folder: Path, trace: Trace) -> Trace:
    """Write a trace, as the command does after it has read one."""
    store.write_trace(folder, trace)
    return trace


def timed(name: str, read: Callable[[], Trace]) -> Trace:
    """Call `read` and print its time."""
    cpu, wall = time.process_time(), time.perf_counter()
    trace = read()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{name:32} {cpu:6.2f} s of CPU, {wall:6.2f} s of wall time", flush=True)
    return trace


def main() -> None:
    """Write the folder, import it in both ways, and write the trace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=98, help="of each file")
    parser.add_argument("--layers", type=int, default=26)
    arguments = parser.parse_args()
    router = Router("bench", EXPERTS, TOP_K, tuple(range(arguments.layers)))
    plain = runpy.run_path(str(PLAIN))["read"]
    with TemporaryDirectory() as name:
        source, out = Path(name) / "source", Path(name) / "out"
        source.mkdir()
        write_prompts(source, arguments.files, arguments.tokens, router)
        size = sum(path.stat().st_size for path in source.iterdir()) / 1e6
        print(f"{arguments.files} files, {arguments.files * arguments.tokens:,} tokens, {size:.0f} MB")
        slow = timed("row by row", lambda: plain(source, router, ORIGIN))
        fast = timed("import", lambda: import_source("prompt_csv", source, router, ORIGIN))
        timed("write and check the trace", lambda: written(out, fast))
    if not np.array_equal(slow.experts, fast.experts) or not np.array_equal(slow.sequence, fast.sequence):
        raise SystemExit("the two ways differ")


if __name__ == "__main__":
    main()
