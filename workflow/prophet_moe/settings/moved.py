"""Keys that earlier versions read elsewhere: an overlay that still has one is told where the key went."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prophet_moe.errors import UserError

MOVED = {
    "figure_models.figure1_memory_breakdown": "studies.kv_extension.figure1_models",
    "figure_models.figure3_context_scaling": "studies.kv_extension.figure3_models",
    "figure_models.figure4_batch_context_tradeoff": "studies.kv_extension.figure4_models",
    "figure_models.frontier": "studies.frontier.models",
    "prefill": "studies.prefill",
    "reported_comparison": "studies.comparison.reported",
    "reported_exponents": "studies.routing_law.reported_exponents",
    "sensitivity": "studies.headline",
    "simulation.copy_chunk_mb": "replay.copy_chunk_mb",
    "simulation.storage_gb_per_s": "replay.storage_gb_per_s",
    "simulation.timed_as": "replay.timed_as",
    "simulation.frontier_layers": "studies.frontier.layers",
    "simulation.frontier_largest_batch": "studies.frontier.largest_batch",
    "simulation.frontier_predictor": "studies.frontier.predictor",
    "simulation.frontier_samples": "studies.frontier.samples",
    "simulation.frontier_sequences": "studies.frontier.sequences",
    "simulation.frontier_shares": "studies.frontier.shares",
    "simulation.frontier_tokens": "studies.frontier.tokens",
    "simulation.frontier_traces": "studies.frontier.traces",
    "simulation.slowdown_limits": "studies.frontier.slowdown_limits",
    "simulation.batch_sizes": "studies.comparison.batch_sizes",
    "simulation.capacity_share": "studies.comparison.capacity_share",
    "simulation.capacity_shares": "studies.comparison.capacity_shares",
    "simulation.dedup_samples": "studies.comparison.dedup_samples",
    "simulation.link_speedups": "studies.comparison.link_speedups",
    "simulation.seeds": "studies.comparison.seeds",
    "simulation.sequence_order": "studies.comparison.sequence_order",
    "simulation.sequences": "studies.comparison.sequences",
    "simulation.sweep_batch_sizes": "studies.comparison.sweep_batch_sizes",
    "simulation.sweep_seeds": "studies.comparison.sweep_seeds",
    "simulation.tokens": "studies.comparison.tokens",
}
"""New paths of keys of config/experiment.yaml by their old ones."""


MOVED_OF_SCENARIOS = {
    "weight_bits": ("precision", "int8"),
    "kv_bits": ("kv_format", "fp8"),
    "ssm_state_bits": ("state_format", "bf16"),
}
"""New keys of a scenario by their old ones, with a format that they take: a number of bits says nothing of scales."""


def refuse_moved(config: Mapping[str, Any], file_of: Callable[[tuple], str], next_step: str) -> None:
    """Raise a UserError for the first key of a configuration that has moved; `file_of` finds the file that holds it."""
    for keys in _paths(config, depth=3):
        if new := _moved(keys):
            raise UserError(file_of(keys), f"{'.'.join(map(str, keys))}: this key is now {new}", next_step)


def _moved(keys: tuple) -> str | None:
    """Return where a key is now; None where it has not moved."""
    match keys:
        case ("scenarios", scenario, str(key)) if key in MOVED_OF_SCENARIOS:
            new, example = MOVED_OF_SCENARIOS[key]
            return f"scenarios.{scenario}.{new}, the name of a format, such as {example} (docs/precision.md)"
    return MOVED.get(".".join(map(str, keys)))


def _paths(config: Mapping[str, Any], depth: int) -> Iterator[tuple]:
    """Return the paths of the keys of a configuration down to a depth."""
    for key, value in config.items():
        yield (key,)
        if depth > 1 and isinstance(value, Mapping):
            yield from ((key, *below) for below in _paths(value, depth - 1))
