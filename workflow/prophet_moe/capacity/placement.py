"""Models that no GPU at hand can hold, whatever is predicted."""

from collections.abc import Mapping

from prophet_moe.capacity.memory import device_bytes, model_memory
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.settings.scenario import Scenario
from prophet_moe.units import GB


def unplaceable(models: Mapping[str, ModelSpec], gpus: Mapping[str, GpuSpec], scenario: Scenario) -> dict[str, str]:
    """Return the models whose non-expert weights alone exceed every GPU, each with the sentence that says so."""
    usable = {name: device_bytes(gpu, scenario) for name, gpu in gpus.items()}
    largest = max(usable, key=usable.__getitem__)
    limit = usable[largest]
    problems = {}
    for name, spec in models.items():
        memory = model_memory(spec, scenario)
        if memory is not None and memory.non_expert_bytes > limit:
            problems[name] = (
                f"non-expert weights take {memory.non_expert_bytes / GB:.1f} GB, "
                f"expected at most the {limit / GB:.1f} GB of the largest GPU, {largest}"
            )
    return problems
