"""The routing that each model is simulated on: a recorded trace of its E and k, else the nearest calibrated routing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from prophet_moe.catalog import ModelSpec
from prophet_moe.inventory import Inventory
from prophet_moe.routing.nearest import candidate_of, source_of
from prophet_moe.validation import read_json


def proxies(
    traces: Sequence[str], here: Inventory, calibrated: Path, models: Mapping[str, ModelSpec]
) -> dict[str, list[str]]:
    """Return the models that each routing is the proxy of, by its name.

    Of `traces`, those that are listed and have a predictor are considered; `calibrated` is the folder of fitted
    routing, which lies in the project, so that the result is the same on every machine.
    """
    shapes = {name: here.router_shape(name) for name in traces if name in here.traces and name in here.predicted}
    candidates = {path.stem: candidate_of(read_json(path)) for path in sorted(calibrated.glob("*.json"))}
    chosen: dict[str, list[str]] = {}
    for name, model in models.items():
        moe = model.architecture.moe
        chosen.setdefault(source_of(moe.experts, moe.top_k, shapes, candidates), []).append(name)
    return chosen
