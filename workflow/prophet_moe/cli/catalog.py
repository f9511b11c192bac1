"""Commands about models, GPUs and the configuration."""

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from prophet_moe import params
from prophet_moe.capacity.memory import device_bytes, model_memory
from prophet_moe.capacity.placement import unplaceable
from prophet_moe.capacity.reference import evaluate
from prophet_moe.capacity.reserve import measured_reserves, with_reserve
from prophet_moe.catalog import load_gpus, load_models, model_names
from prophet_moe.cli.terminal import console
from prophet_moe.documents import read_yaml
from prophet_moe.errors import UserError
from prophet_moe.files import write_text
from prophet_moe.present.documentation import documents
from prophet_moe.routing.datasets import router_in
from prophet_moe.routing.variation import read_variations
from prophet_moe.settings import resolve
from prophet_moe.units import GB

MODELS, GPUS, EXPERIMENT = Path("config/models"), Path("config/gpus.yaml"), Path("config/experiment.yaml")
VARIATIONS, MEMORY = Path("tables/data/routing_variation.csv"), Path("resources/memory")
TRACES = Path("resources/traces")


def add_commands(commands: Any) -> None:
    """Add `models`, `capacity` and `config`."""
    models = commands.add_parser("models", help="list the catalogue with exact counts")
    models.set_defaults(run=list_models)

    capacity = commands.add_parser("capacity", help="one configuration: what fits, and how long a context")
    capacity.add_argument("--model", required=True)
    capacity.add_argument("--gpu", required=True)
    capacity.add_argument("--batch", required=True, type=int)
    capacity.add_argument("--scenario", default="calibrated")
    capacity.set_defaults(run=show_capacity)

    config = commands.add_parser("config", help="the generated schemas and reference pages")
    config.add_argument("action", choices=["write", "check"])
    config.set_defaults(run=generated_documents)


def list_models(arguments: argparse.Namespace) -> None:
    """Print one line per model."""
    table = Table(
        "model",
        "total (B)",
        "active (B)",
        "MoE layers",
        "E",
        "k",
        "expert (MB)",
        "non-expert (GB)",
        "KV (B/token)",
        "native context",
    )
    for name, spec in load_models(MODELS).items():
        arch = spec.architecture
        counts = params.parameter_counts(arch)
        table.add_row(
            name,
            f"{counts.total / 1e9:.2f}",
            f"{params.active_parameters(arch) / 1e9:.2f}",
            str(params.moe_layers(arch)),
            str(arch.moe.experts),
            str(arch.moe.top_k),
            f"{2 * params.expert_parameters(arch) / 1e6:.1f}",
            f"{2 * counts.non_expert / GB:.2f}",
            f"{params.kv_bytes_per_token(arch):,}",
            f"{arch.native_context:,}",
        )
    console().print(table)


def show_capacity(arguments: argparse.Namespace) -> None:
    """Print all metrics of one configuration."""
    if arguments.batch < 1:
        raise UserError("--batch", f"got {arguments.batch}, expected a whole number of at least 1", "Correct it.")
    experiment = resolve(read_yaml(EXPERIMENT), [EXPERIMENT], model_names(MODELS), load_gpus(GPUS)).experiment
    if arguments.scenario not in experiment.scenarios:
        known = ", ".join(experiment.scenarios)
        raise UserError(
            "--scenario", f"unknown scenario {arguments.scenario!r}, expected one of {known}", "Correct it."
        )
    scenario = experiment.scenarios[arguments.scenario]
    models, gpus = load_models(MODELS, [arguments.model]), load_gpus(GPUS, [arguments.gpu])
    for model, problem in unplaceable(models, gpus, scenario).items():
        raise UserError(model, problem, "Choose a larger GPU or fewer weight bits.")
    memory = model_memory(models[arguments.model], scenario)
    if memory is None:
        raise UserError(arguments.model, "the report does not cover it", "Use --scenario calibrated.")

    if scenario.fits_routing:
        variations = read_variations(VARIATIONS, scenario.routing.batching)
        if scenario.fits_counts:
            # Fitting needs Numba and SciPy, whose imports take half a second.
            from prophet_moe.routing.counted_law import own_variations

            routers = {arguments.model: router_in(arguments.model, models[arguments.model])}
            own = own_variations([TRACES / name for name in experiment.counts], routers)
            variations |= {variation.model: variation for variation in own}
        memory = replace(memory, variation=variations[arguments.model].value)
    here = with_reserve(scenario, measured_reserves(MEMORY, gpus).get(arguments.gpu))
    metrics = evaluate(memory, device_bytes(gpus[arguments.gpu], scenario), arguments.batch, here)
    table = Table(
        "metric",
        "value",
        min_width=60,
        title=f"{arguments.model} on {arguments.gpu}, batch {arguments.batch} ({arguments.scenario})",
    )
    for name, value in metrics.items():
        label, shown = name, value
        if name.endswith("_bytes"):
            label, shown = name.removesuffix("_bytes") + " (GB)", value / GB
        table.add_row(label, _printed(shown))
    console().print(table)


def generated_documents(arguments: argparse.Namespace) -> None:
    """Write the schemas and reference pages, or say which differ from their source."""
    for path, text in documents().items():
        if arguments.action == "write":
            write_text(path, text)
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            raise UserError(
                str(path), "differs from its source in workflow/prophet_moe", "Run: prophet-moe config write"
            )


def _printed(value: float | int | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isnan(value):
        return "undefined: the baseline does not fit"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if value < 100 else f"{value:,.1f}"
