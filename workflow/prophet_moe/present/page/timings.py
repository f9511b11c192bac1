"""How long the jobs of the last build took, from the files that Snakemake's `benchmark` writes."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prophet_moe.errors import UserError
from prophet_moe.validation import read_text


class Timing(NamedTuple):
    """One job: the name of its benchmark, wall-clock and processor seconds, and its largest memory in MB."""

    job: str
    seconds: float
    cpu_seconds: float | None
    max_rss_mb: float | None


def read_timings(folder: Path) -> list[Timing]:
    """Return the jobs of a folder of benchmarks, the longest first; a file that is none is a UserError."""
    found = [_timing(path, path.relative_to(folder)) for path in sorted(folder.rglob("*.tsv"))]
    return sorted(found, key=lambda each: (-each.seconds, each.job))


def _timing(path: Path, name: Path) -> Timing:
    try:
        row = next(csv.DictReader(read_text(path).splitlines(), delimiter="\t"))
        seconds, *rest = row["s"], row["cpu_time"], row["max_rss"]
        return Timing(str(name.with_suffix("")), float(seconds), *map(_known, rest))
    except (KeyError, StopIteration, ValueError):
        raise UserError(str(path), "is no benchmark of Snakemake", "Remove it, and build its job again.") from None


def _known(text: str) -> float | None:
    """Return a number that Snakemake wrote; it writes NA of jobs that ended before it could look."""
    return None if text in ("NA", "-") else float(text)


def total(timings: Sequence[Timing]) -> Timing:
    """Return the sums of the seconds, and the largest memory."""
    memory = max((each.max_rss_mb for each in timings if each.max_rss_mb is not None), default=None)
    cpu = sum(each.cpu_seconds for each in timings if each.cpu_seconds is not None)
    return Timing("all jobs", sum(each.seconds for each in timings), cpu, memory)
