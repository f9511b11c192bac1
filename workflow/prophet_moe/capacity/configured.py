"""Models and GPUs as one scenario configures them: what the memory of every study is computed from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prophet_moe.capacity.memory import ModelMemory, model_memory
from prophet_moe.capacity.reserve import reserves_for
from prophet_moe.capacity.under_engine import NO_ENGINE, EngineChoice, Held, memories_on, read_engine
from prophet_moe.catalog import GpuSpec, ModelSpec, load_gpus
from prophet_moe.catalog.model import load_model
from prophet_moe.routing.popularity_cv import PopularityCV, popularity_cvs_of
from prophet_moe.settings.scenario import Scenario


@dataclass(frozen=True)
class Configured:
    """Models and GPUs under one scenario, with what was fitted and measured for it."""

    models: Mapping[str, ModelSpec]
    """By name. Those that the report does not cover are left out of a scenario with reported architectures."""
    gpus: Mapping[str, GpuSpec]
    """By name."""
    scenario: Scenario
    """The parameters that all models and GPUs share."""
    popularity_cvs: Mapping[str, PopularityCV] = field(default_factory=dict)
    """By model; used where the scenario's routing is fitted."""
    reserves: Mapping[str, int] = field(default_factory=dict)
    """Measured runtime reserve in bytes by GPU; for other GPUs the scenario's assumption counts."""
    engine: EngineChoice = NO_ENGINE
    """The scenario's engine."""

    def under(self, scenario: Scenario) -> "Configured":
        """Return the same models and GPUs under another scenario."""
        return replace(self, scenario=scenario)

    def popularity_cv(self, model: str) -> float:
        """Return the popularity CV of a model: fitted, or given by the scenario."""
        return self.popularity_cvs[model].value if self.scenario.fits_routing else self.scenario.given_popularity_cv

    def constants(self) -> dict[str, ModelMemory]:
        """Return the memory constants of the models that the scenario covers, without an engine."""
        found = {name: model_memory(spec, self.scenario) for name, spec in self.models.items()}
        return {
            name: replace(memory, popularity_cv=self.popularity_cv(name))
            for name, memory in found.items()
            if memory is not None
        }

    def held(self) -> dict[tuple[str, str], Held]:
        """Return the memory of every model on every GPU under the scenario and its engine (`memories_on`)."""
        return memories_on(self.models, self.gpus, self.scenario, self.engine, self.reserves)


def read_configured(
    files: SimpleNamespace, parameters: Mapping[str, Any], gpus: Sequence[str] | None = None
) -> Configured:
    """Read what the memory of a study is computed from, out of the files and parameters of its job.

    Parameters
    ----------
    files : SimpleNamespace
        Paths by name: `models` and `gpus`; where the job has them, `variations` and `engine`.
    parameters : mapping from str to object
        `scenario`; `gpus`, unless they are given; `memory`, the folder of measured reserves, where the job has one.
    gpus : sequence of str, optional
        Names of the GPUs in place of those of the parameters.

    Returns
    -------
    Configured
        With no popularity CVs, no measured reserves and no engine where the job has none.
    """
    scenario = Scenario.model_validate(parameters["scenario"])
    listed = load_gpus(files.gpus, parameters["gpus"] if gpus is None else gpus)
    return Configured(
        {path.stem: load_model(path) for path in files.models},
        listed,
        scenario,
        popularity_cvs_of(getattr(files, "variations", []), scenario.routing.batching),
        reserves_for(scenario, Path(parameters["memory"]), listed) if "memory" in parameters else {},
        read_engine(getattr(files, "engine", [])),
    )
