"""Serve the held-out tokens of one routing trace from expert caches by every strategy, with a clock."""

from pathlib import Path

from prophet_moe.catalog import load_gpus
from prophet_moe.catalog.link import link_named, load_links
from prophet_moe.files import write_csv
from prophet_moe.hardware.pace import read_paces
from prophet_moe.offload.simulator.timing import timing_model
from prophet_moe.predict.network import read_trained
from prophet_moe.routing.store import read_trace
from prophet_moe.settings.fields import WeightFormats
from prophet_moe.settings.scenario import Formats
from studies.comparison.replays import comparative_results, sweep
from studies.comparison.study import ComparisonSettings


def build(files, parameters):
    """Write one row per run, the detail by layer, and the sweeps over capacity and link."""
    name, gpu = parameters["name"], parameters["gpu"]
    trace = read_trace(files.files[0].parent)
    network = read_trained(files.predictor[0].parent, trace, files.files[0].parent) if files.predictor else None
    chosen = dict(parameters["simulation"])
    chunk_mb = chosen.pop("copy_chunk_mb")
    plan = ComparisonSettings.model_validate(chosen)
    link = link_named(parameters["link"], load_links(files.links))
    paces = read_paces(Path(parameters["profiles"]), files.operators[0].parent, load_gpus(files.gpus, [gpu]), link)[gpu]
    model, formats = parameters["model"], Formats.model_validate(parameters["formats"])
    precision = formats.precision_of(WeightFormats.model_validate(model["precision"]))
    timed, bound = (
        timing_model(model["architecture"], pace, trace.router, parameters["context"], precision, chunk_mb)
        for pace in (paces.best, paces.bound)
    )
    results, layers = comparative_results(name, trace, network, timed, bound, plan)
    write_csv(files.results, results)
    write_csv(files.layers, layers)
    write_csv(files.sweeps, sweep(name, trace, network, timed, plan))
