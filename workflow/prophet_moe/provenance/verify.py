"""Check outputs against their sidecars and against the committed copies."""

import io
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from prophet_moe.files import sha256
from prophet_moe.provenance.sidecar import sidecar_of
from prophet_moe.tables import TOLERANCE
from prophet_moe.validation import read_json

PIXEL_TOLERANCE = 2.0
"""Largest root mean square difference of two drawings, out of 255."""

Tolerances = Mapping[str, Mapping[str, float]]
"""Largest relative difference of a number, by the name of a table's file and of its column."""
HASH_LINE = re.compile(r"config [0-9a-f]{12}")
NUMBER = re.compile(r"-?\d+\.?\d*(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Check:
    """The result for one output: what its sidecar says of it, and how it compares with the committed copy."""

    output: str
    sidecar: str
    committed: str
    remedy: str = ""
    """The command that mends a failure, where there is one."""

    @property
    def passed(self) -> bool:
        """True when neither part failed."""
        return not any(part.startswith("FAIL") for part in (self.sidecar, self.committed))


def verify(output: Path, tolerances: Tolerances) -> Check:
    """Recompute every hash that the sidecar of `output` holds, and compare `output` with the commit checked out."""
    told, remedy = against_sidecar(output)
    return Check(str(output), told, _against_commit(output, tolerances), remedy)


def against_sidecar(output: Path) -> tuple[str, str]:
    """Say whether the sidecar of `output` holds the hashes that its files have, and by which command to mend it."""
    again = f"snakemake --cores 8 --force {output}"
    if not sidecar_of(output).exists():
        return "FAIL: no sidecar", again
    told = read_json(sidecar_of(output))
    if sha256(output) != told["sha256"]:
        return "FAIL: the file was changed after it was made", again
    recorded = told["inputs"] | told["code"]
    missing = [path for path in recorded if not Path(path).exists()]
    if missing:
        return f"FAIL: {', '.join(missing[:3])} is missing", f"snakemake --cores 8 {' '.join(missing)}"
    stale = [path for path, digest in recorded.items() if sha256(Path(path)) != digest]
    if stale:
        return f"FAIL: made from another version of {', '.join(stale[:3])}", "snakemake --cores 8"
    return f"ok, {len(recorded)} inputs", ""


def _against_commit(output: Path, tolerances: Tolerances) -> str:
    theirs = committed(output)
    if theirs is None:
        return "no committed copy"
    return "identical" if theirs == output.read_bytes() else compare(output, theirs, tolerances)


def committed(output: Path) -> bytes | None:
    """The content of a file in the commit checked out; None where it holds none, or this is no git repository."""
    try:
        shown = subprocess.run(["git", "show", f"HEAD:./{output}"], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return shown.stdout if shown.returncode == 0 else None


def compare(output: Path, committed: bytes, tolerances: Tolerances) -> str:
    """Compare a file with other bytes of its kind, within tolerances: FAIL and the difference, or ok."""
    by_column = tolerances.get(f"{output.stem}.csv", {})
    if output.suffix == ".csv":
        return _compare_tables(pd.read_csv(output), pd.read_csv(io.BytesIO(committed)), by_column)
    if output.suffix == ".json":
        return _compare_tables(pd.read_json(output), pd.read_json(io.BytesIO(committed)), by_column)
    if output.suffix == ".tex":
        return _compare_text(output.read_text(encoding="utf-8"), committed.decode())
    if output.suffix == ".png":
        return _compare_images(output, committed)
    return "other bytes; its PNG is compared"


def _compare_tables(ours: pd.DataFrame, theirs: pd.DataFrame, by_column: Mapping[str, float]) -> str:
    if list(ours.columns) != list(theirs.columns) or len(ours) != len(theirs):
        return f"FAIL: {ours.shape} rows and columns, committed {theirs.shape}"
    largest = 0.0
    for name in ours:
        tolerance = by_column.get(name, TOLERANCE)
        difference = _largest_difference(ours[name], theirs[name])
        if difference > tolerance:
            return f"FAIL: column {name} differs by {difference:.2g}, tolerance {tolerance:g}"
        largest = max(largest, difference)
    return f"ok within tolerance, {largest:.1g}"


def _largest_difference(ours: pd.Series, theirs: pd.Series) -> float:
    """Largest relative difference of two columns; infinite where text or a missing value differs."""
    if (ours.isna() != theirs.isna()).any():
        return np.inf
    if not (pd.api.types.is_numeric_dtype(ours) and pd.api.types.is_numeric_dtype(theirs)):
        return 0.0 if ours.dropna().equals(theirs.dropna()) else np.inf
    a, b = ours.dropna().to_numpy(float), theirs.dropna().to_numpy(float)
    scale = np.maximum(np.abs(a), np.abs(b))
    return float(np.max(np.abs(a - b) / np.where(scale > 0, scale, 1), initial=0.0))


def _compare_text(ours: str, theirs: str) -> str:
    ours, theirs = HASH_LINE.sub("", ours), HASH_LINE.sub("", theirs)
    if NUMBER.split(ours) != NUMBER.split(theirs):
        return "FAIL: the text differs"
    numbers = pd.Series(NUMBER.findall(ours), dtype=float), pd.Series(NUMBER.findall(theirs), dtype=float)
    difference = _largest_difference(*numbers)
    return f"FAIL: a number differs by {difference:.2g}" if difference > TOLERANCE else "ok within tolerance"


def _compare_images(ours: Path, theirs: bytes) -> str:
    distance = _distance(ours, theirs)
    return f"FAIL: {drawn(ours, theirs)}" if distance > PIXEL_TOLERANCE else f"ok, RMS {distance:.2f} of 255"


def drawn(ours: Path, theirs: bytes) -> str:
    """Say how a drawing differs from the bytes of another: in its size, or by the root mean square of its pixels."""
    distance = _distance(ours, theirs)
    if np.isinf(distance):
        a, b = Image.open(ours), Image.open(io.BytesIO(theirs))
        return f"{a.width}x{a.height} pixels, committed {b.width}x{b.height}"
    return f"drawn differently, RMS {distance:.1f} of 255"


def _distance(ours: Path, theirs: bytes) -> float:
    """Root mean square difference of two drawings, out of 255; infinite where their sizes differ."""
    a, b = (np.asarray(Image.open(image).convert("RGB"), float) for image in (ours, io.BytesIO(theirs)))
    return float(np.sqrt(np.mean((a - b) ** 2))) if a.shape == b.shape else np.inf


def remedies(checks: Sequence[Check]) -> list[str]:
    """The commands that mend the failures, each once, in order."""
    return list(dict.fromkeys(check.remedy for check in checks if check.remedy))


def failures(checks: Sequence[Check]) -> list[Check]:
    """The checks that did not pass."""
    return [check for check in checks if not check.passed]
