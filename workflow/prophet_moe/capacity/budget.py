"""The budget of a GPU, line by line: what is taken with every expert resident, and with Prophet's resident set."""

from collections.abc import Iterator
from dataclasses import dataclass

from prophet_moe import params
from prophet_moe.capacity.memory import ModelMemory, Number
from prophet_moe.catalog import Architecture
from prophet_moe.precision import Precision
from prophet_moe.settings.scenario import IDEAL, Scenario
from prophet_moe.units import MIB

COMPONENTS = {
    "shared_experts": "shared experts",
    "dense_ffn": "dense FFNs",
    "attention": "attention",
    "indexer": "index branches of sparse attention",
    "state_mixer": "linear attention, Mamba, convolutions",
    "latent_projections": "projections to the width of experts",
    "router": "routers",
    "embeddings": "embeddings",
    "norms": "norms",
    "hyper_connections": "hyper-connections",
    "other": "other weights",
}
"""Components that are always resident, with their names in the budget."""


@dataclass(frozen=True)
class Line:
    """One line of a budget, in bytes."""

    what: str
    baseline: Number
    """With every expert resident."""
    prophet: Number
    """With Prophet's resident set."""


def budget(
    arch: Architecture,
    precision: Precision,
    memory: ModelMemory,
    scenario: Scenario,
    metrics: dict[str, Number],
    device_bytes: int,
    batch: int,
) -> list[Line]:
    """Return the lines of a budget; those that take memory add up to the device without what is free.

    Parameters
    ----------
    arch : Architecture
        The published architecture.
    precision : Precision
        Formats of its weights.
    memory : ModelMemory
        Its memory constants.
    scenario : Scenario
        Workspace and runtime reserve.
    metrics : dict
        What `reference.evaluate` returns for the configuration.
    device_bytes : int
        Bytes of the device that an engine may use.
    batch : int
        Sequences decoded together.

    Returns
    -------
    list of Line
        The device, then what it holds, then what is free for the KV cache; lines of 0 bytes are left out.
    """
    taken = [
        Line("routed experts", metrics["baseline_expert_bytes"], metrics["prophet_expert_bytes"]),
        *(Line(what, size, size) for what, size in _always_resident(arch, precision, scenario, batch, memory)),
        Line("activations", metrics["activation_bytes"], metrics["activation_bytes"]),
        Line("Prophet's predictor", 0, memory.predictor_bytes),
        Line("Prophet's staging buffer", 0, metrics["staging_bytes"]),
    ]
    free = Line("free for the KV cache", metrics["baseline_free_bytes"], metrics["prophet_free_bytes"])
    shown = [line for line in taken if line.baseline or line.prophet]
    return [Line("device memory that an engine may use", device_bytes, device_bytes), *shown, free]


def _always_resident(
    arch: Architecture, precision: Precision, scenario: Scenario, batch: int, memory: ModelMemory
) -> Iterator[tuple[str, Number]]:
    stored = params.weight_bytes(arch, precision)
    yield from ((what, stored.get(component, 0)) for component, what in COMPONENTS.items())
    draft = params.draft_bytes(arch, precision) if scenario.draft_layers else 0
    yield "draft layers", draft
    counted = sum(stored.get(component, 0) for component in COMPONENTS) + draft
    yield "tables, padding and copies of the engine", memory.non_expert_bytes - counted
    yield "recurrent states of the batch", memory.state_bytes_per_sequence * batch
    ideal = scenario.engine == IDEAL
    reserve = "workspace and runtime reserve" if ideal else "libraries and activations of the engine"
    yield reserve, round((scenario.workspace_mib + scenario.runtime_reserve_mib) * MIB)
