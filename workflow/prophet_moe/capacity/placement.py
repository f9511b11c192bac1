"""Models that no GPU at hand can hold, whatever is predicted."""

from collections.abc import Mapping

from prophet_moe.capacity.under_engine import NO_ENGINE, EngineChoice, memories_on
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.settings.scenario import Scenario
from prophet_moe.units import GB


def unplaceable(
    models: Mapping[str, ModelSpec], gpus: Mapping[str, GpuSpec], scenario: Scenario, engine: EngineChoice = NO_ENGINE
) -> dict[str, str]:
    """Return the models whose non-expert weights alone exceed every GPU, each with the sentence that says so."""
    held, problems = memories_on(models, gpus, scenario, engine), {}
    for name in models:
        on = {gpu: held[name, gpu] for gpu in gpus if (name, gpu) in held}
        if on and all(found.memory.non_expert_bytes > found.device_bytes for found in on.values()):
            largest = max(on, key=lambda gpu, on=on: on[gpu].device_bytes)
            problems[name] = (
                f"non-expert weights take {on[largest].memory.non_expert_bytes / GB:.1f} GB, "
                f"expected at most the {on[largest].device_bytes / GB:.1f} GB of the largest GPU, {largest}"
            )
    return problems
