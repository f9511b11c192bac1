"""Replay the routing that stands in for some models, with their times on every GPU, at every number of experts."""

from pathlib import Path

import pandas as pd

from prophet_moe.catalog import load_gpus
from prophet_moe.catalog.link import link_named, load_links
from prophet_moe.catalog.model import load_model
from prophet_moe.files import write_parquet
from prophet_moe.hardware.pace import read_paces
from prophet_moe.offload.proxies import generated, recorded
from prophet_moe.offload.replay import SampleSize
from prophet_moe.predict.discrimination import read_discrimination
from prophet_moe.predict.network import read_trained
from prophet_moe.routing.calibrated import read_calibrated
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.trace import Router
from prophet_moe.settings.scenario import Formats
from studies.frontier.compute import REPLAYED, slowdowns, to_replay
from studies.frontier.study import FrontierSettings

DIGITS = 12
"""Significant digits of the written numbers."""


def build(files, parameters):
    """Write one row per configuration that Prophet fits, strategy, number of resident experts and sample."""
    name, plan = parameters["name"], FrontierSettings.model_validate(parameters["settings"])
    models = {path.stem: load_model(path) for path in files.models}
    grid = pd.read_parquet(files.grid)
    grid = to_replay(grid[grid["model"].isin(models)], plan)
    specs = load_gpus(files.gpus, list(dict.fromkeys(grid["gpu"])))
    link = link_named(parameters["link"], load_links(files.links))
    paces = read_paces(Path(parameters["profiles"]), files.operators[0].parent, specs, link)
    timed = parameters["context"], Formats.model_validate(parameters["formats"]), plan, parameters["copy_chunk_mb"]
    parts = [pd.DataFrame(columns=REPLAYED)]
    for (experts, top_k, popularity_cv), rows in grid.groupby(["experts", "top_k", "popularity_cv"]):
        sequences = max(plan.sequences, int(rows["batch_size"].max()))
        samples = _samples(files, parameters, plan, int(experts), int(top_k), float(popularity_cv), sequences)
        parts.append(slowdowns(name, samples, models, paces, rows, *timed))
    write_parquet(files.slowdowns, pd.concat(parts[1:] or parts, ignore_index=True), DIGITS)


def _samples(files, parameters, plan, experts, top_k, popularity_cv, sequences):
    """Samples of the recorded trace, or of routing generated for this E, k and popularity CV, those of the memory."""
    size = SampleSize(sequences, plan.tokens)
    if files.trace:
        folder = files.trace[0].parent
        trace = read_trace(folder)
        return recorded(trace, read_trained(files.predictor[0].parent, trace, folder), size, plan.samples)
    router = Router(parameters["name"], experts, top_k, tuple(range(plan.layers)))
    power = read_discrimination(files.discrimination[0])
    return generated(read_calibrated(files.calibrated[0]), router, popularity_cv, power, size, plan.samples)
