"""Measurements in parts, each kept as soon as it is made, so that a second call after a kill goes on."""

import csv
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from prophet_moe.collect import machine
from prophet_moe.collect.allocation import within_memory
from prophet_moe.collect.resume import PARTS, PLAN, drop_parts, refuse_complete, start_or_resume
from prophet_moe.files import atomic_write, write_json
from prophet_moe.routing.store import seal

Rows = list[dict[str, Any]]
"""Rows of one kind of measurement."""
Parts = dict[str, Callable[[], Rows]]
"""Parts of a measurement by name, each less than a minute long."""


def seconds(run: Callable[[], object], repeats: int, warmup: int = 3) -> list[float]:
    """Return the seconds of each of `repeats` calls of `run`: by CUDA events on a GPU, else by the wall clock."""
    for _ in range(warmup):
        run()
    if not machine.on_gpu():
        taken = []
        for _ in range(repeats):
            begun = time.perf_counter()
            run()
            taken.append(time.perf_counter() - begun)
        return taken
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    torch.cuda.synchronize()
    for begin, end in marks:
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) / 1e3 for begin, end in marks]


def spread(samples: Sequence[float], unit: str = "seconds") -> dict[str, float]:
    """Return the median of at least two samples, their quartiles and number, as the columns of a row."""
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return {unit: middle, f"{unit}_low": low, f"{unit}_high": high, "repeats": len(samples)}


def measure(folder: Path, kind: str, plan: Any, parts: Parts) -> None:
    """Measure every part that is not there yet, then write <kind>.csv, metadata.json and SHA256SUMS.

    Parameters
    ----------
    folder : Path
        Where parts and results go; parts that are there are kept.
    kind : str
        hardware, memory, prefetch or overhead.
    plan : dataclass
        What is measured, recorded in the metadata.
    parts : mapping from str to callable
        Functions that return rows, by the name of their part.

    Raises
    ------
    UserError
        Where the folder is complete, or holds parts of another plan or machine, or a part does not fit in memory.
    """
    refuse_complete(folder, "measurement")
    described = {"kind": kind, "plan": asdict(plan), "machine": machine.described(), "parts": len(parts)}
    start_or_resume(folder / PLAN, described, "another plan, or of another machine")
    rows: Rows = []
    for name, make in tqdm(parts.items(), desc=kind, unit="part"):
        path = folder / PARTS / f"{name}.json"
        if not path.exists():
            measured = within_memory(f"{kind} plan", name, make)
            write_json(path, {"rows": measured, "state": machine.state()})
        rows += json.loads(path.read_text())["rows"]
    states = {name: json.loads((folder / PARTS / f"{name}.json").read_text())["state"] for name in parts}
    with atomic_write(folder / f"{kind}.csv") as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    metadata = {
        "kind": kind,
        "collector": machine.collector(),
        "machine": described["machine"],
        "plan": asdict(plan),
        "state_after_part": states,
    }
    seal(folder, metadata, f"{kind}.csv")
    drop_parts(folder)
