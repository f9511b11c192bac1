"""Count what batches of one routing trace save because tokens share experts."""

import pandas as pd

from prophet_moe.files import write_csv
from prophet_moe.offload.deduplication import SEED, deduplication
from prophet_moe.predict.context import split
from prophet_moe.provenance.job import run
from prophet_moe.routing.store import read_trace
from prophet_moe.settings import Simulation


def build(files, parameters):
    """Write one row per batch drawn."""
    plan = Simulation.model_validate(parameters["simulation"])
    _, held_out = split(read_trace(files.files[0].parent))
    counted = deduplication(parameters["name"], held_out.described(), plan.batch_sizes, plan.dedup_samples, SEED)
    write_csv(files.deduplication, pd.DataFrame(counted))


if __name__ == "__main__":
    run(build, reads_many=["files"], writes=["deduplication"])
