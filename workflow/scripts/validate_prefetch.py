"""Hold the simulated decode loop against what GPUs were measured to take for it."""

from pathlib import Path

import pandas as pd

from prophet_moe.catalog import load_gpus
from prophet_moe.collect.plan import read_as, read_recorded
from prophet_moe.files import write_csv
from prophet_moe.hardware.profile import check_device, read_profile
from prophet_moe.hardware.recorded import read_recording
from prophet_moe.offload.decode_loop.plan import KIND, Plan
from prophet_moe.offload.decode_loop.validation import Machine, compare, read_summaries, summary
from prophet_moe.provenance.job import run
from prophet_moe.routing.store import METADATA


def build(files, parameters):
    """Write a row per GPU and configuration, and table 12; GPUs that were never measured are simulated on the plan."""
    measured = {path.parent for path in files.recorded}
    tables, unmeasured = [], []
    for name, spec in load_gpus(files.gpus, parameters["gpus"]).items():
        profile = read_profile(Path(parameters["profiles"]), name, spec)
        folder = Path(parameters["recordings"]) / name
        if folder not in measured:
            unmeasured.append(Machine(name, profile))
            continue
        recording = read_recording(folder, KIND)
        check_device(recording, name, spec)
        plan = read_recorded(Plan, recording.metadata, folder / METADATA)
        tables.append(compare(plan, [Machine(name, profile, read_summaries(recording, plan))]))
    if unmeasured:
        tables.append(compare(read_as(Plan, files.plan), unmeasured))
    order = {name: number for number, name in enumerate(parameters["gpus"])}
    table = pd.concat(tables).sort_values("gpu", key=lambda names: names.map(order), kind="stable")
    write_csv(files.validation, table)
    write_csv(files.summary, summary(table))


if __name__ == "__main__":
    run(
        build,
        reads=["plan", "gpus"],
        reads_many=["replayed"],
        reads_any=["recorded", "profiled"],
        writes=["validation", "summary"],
    )
