"""What a build tells its user: notes before, numbers after, and what was wrong."""

import sys
import time

STARTED = time.time()


def notes():
    """What a user should know before the build: models that no GPU can hold, missing data, how long training takes."""
    unfit = [f"note: {model}: {problem}; its rows show fit state `neither`" for model, problem in TOO_LARGE.items()]
    return unfit + missing_datasets() + without_predictor() + without_times() + unmeasured() + expected_minutes()


def failures():
    """The lines in which failed jobs told what was wrong."""
    lines = []
    for path in sorted(Path("logs").rglob("*.log")):
        text = path.read_text() if path.stat().st_mtime >= STARTED else ""
        told = [line for line in text.splitlines() if line.startswith("error: ")]
        unexpected = [f"see {path}: {text.splitlines()[-1]}"] if "Traceback (most recent call last)" in text else []
        lines += told or unexpected
    return lines


def summary():
    """What the end of a build tells: where the outputs are, and the numbers to look at first."""
    places = ", ".join(f"{name} in {at}" if at else f"{name} at the top" for name, at in PLACES.items())
    lines = ["", f"Outputs: figures/, tables/, paper/generated/, results/notebooks/. Scenarios: {places}.", ""]
    if Path(HEADLINES).exists():
        lines += [Path(HEADLINES).read_text()]
    lines += ["Compare with the committed outputs: snakemake verify --cores 2"]
    return "\n".join(lines + ([] if TEX_IS_INSTALLED else [HOW_TO_GET_TEX]))
