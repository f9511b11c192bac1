"""Measurements of the decode loop that can be simulated, and the files that they need."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from prophet_moe.collect.plan import read_recorded
from prophet_moe.inventory import PREDICTOR_FILES, TRACE_FILES
from prophet_moe.offload.decode_loop.plan import Plan
from prophet_moe.validation import read_json


def recorded_plans(folder: Path, gpus: Sequence[str]) -> dict[str, Plan]:
    """Return the plan of every complete measurement below `folder`, by the name of its GPU."""
    paths = [folder / name / "metadata.json" for name in gpus]
    complete = [path for path in paths if path.with_name("SHA256SUMS").exists()]
    return {path.parent.name: read_recorded(Plan, read_json(path), path) for path in complete}


def replayed_files(plan: Plan) -> list[Path]:
    """Return the files of the traces and predictors that a plan names."""
    workloads = plan.workloads.values()
    files = [Path(workload.trace) / name for workload in workloads for name in TRACE_FILES]
    trained = [workload.predictor for workload in workloads if workload.predictor]
    return sorted({*files, *(Path(predictor) / name for predictor in trained for name in PREDICTOR_FILES)})


def missing(plan: Plan) -> list[Path]:
    """Return the files of the plan that are missing."""
    return [path for path in replayed_files(plan) if not path.exists()]


def notes(plan: Plan, plans: Mapping[str, Plan], gpus: Sequence[str], folder: Path) -> list[str]:
    """Return one line for GPUs that were not measured, and for each trace that is missing."""
    lines = []
    replayable = [name for name, own in plans.items() if not missing(own)]
    if names := [name for name in gpus if name not in replayable]:
        lines.append(
            f"note: no simulated time was compared with measurements on {', '.join(names)}. "
            f"To measure on a machine with the GPU: python -m prophet_moe.collect prefetch --out {folder}/NAME"
        )
    table = "tables/data/prefetch_validation.csv"
    lines += [
        f"note: {missing(own)[0]} is missing, so {table} leaves out the measurement on {name}"
        for name, own in plans.items()
        if missing(own)
    ]
    if missing(plan):
        both = "tables/data/prefetch_validation.csv and tables/table12_simulated_and_measured.csv"
        lines.append(f"note: {missing(plan)[0]} is missing, so {both} are not built")
    return lines
