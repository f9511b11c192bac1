"""Replay one routing trace with the times of every model that it stands for, on every GPU, at every resident share."""

from pathlib import Path

import pandas as pd

from prophet_moe.capacity.frontier import nearest_trace, slowdowns
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.catalog import load_gpus
from prophet_moe.catalog.model import load_model
from prophet_moe.files import write_parquet
from prophet_moe.hardware.profile import read_profile
from prophet_moe.precision import Precision
from prophet_moe.predict.network import read_trained
from prophet_moe.provenance.job import run
from prophet_moe.routing.store import read_metadata, read_trace, router_of
from prophet_moe.settings import Simulation


def build(files, parameters):
    """Write one row per model, GPU, batch size, strategy and share."""
    name, folder = parameters["name"], files.files[0].parent
    trace = read_trace(folder)
    network = read_trained(files.predictor[0].parent, trace, folder) if files.predictor else None
    folders = {path.parent for path in files.traces}
    routers = {place.name: router_of(read_metadata(place)) for place in folders}
    models = {path.stem: load_model(path) for path in files.models}
    moes = {model: spec.architecture.moe for model, spec in models.items()}
    mine = {model for model, moe in moes.items() if nearest_trace(moe.experts, moe.top_k, routers) == name}
    grid = pd.read_parquet(files.grid)
    grid = grid[(grid["case"] == ESTIMATE) & grid["model"].isin(mine)]
    specs = load_gpus(files.gpus, list(dict.fromkeys(grid["gpu"])))
    profiles = {gpu: read_profile(Path(parameters["profiles"]), gpu, spec) for gpu, spec in specs.items()}
    plan = Simulation.model_validate(parameters["simulation"])
    chosen = {model: spec for model, spec in models.items() if model in mine}
    precision = Precision(**parameters["precision"])
    points = slowdowns(trace, network, chosen, profiles, grid, parameters["context"], precision, plan)
    write_parquet(files.slowdowns, points.assign(trace=name))


if __name__ == "__main__":
    run(
        build,
        reads=["gpus", "grid"],
        reads_many=["files", "traces", "models"],
        reads_any=["predictor", "measured"],
        writes=["slowdowns"],
    )
