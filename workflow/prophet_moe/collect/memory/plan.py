"""The models whose memory is measured, and what is asked of each."""

from dataclasses import dataclass
from typing import Any

import torch
import transformers

from prophet_moe.checks import check_values, mistake

KIND = "memory"
LEAST = {"seed": 0}
"""The least of whole numbers in the plan that may not start at 1."""


@dataclass(frozen=True)
class ModelPlan:
    """A model: a Transformers configuration class, its arguments and the type of the weights."""

    architecture: str
    config: dict[str, Any]
    catalogue: str
    """Name under config/models; empty where the catalogue has no such model."""
    dtype: str


@dataclass(frozen=True)
class Lengths:
    """Two lengths, tokens: the difference of their caches is the bytes per token."""

    short: int
    long: int


@dataclass(frozen=True)
class Step:
    """A decode step: sequences, and tokens of context in each."""

    batch: int
    tokens: int


@dataclass(frozen=True)
class ContextPlan:
    """How the longest context is searched: KV caches are held while chunks of a prompt and decode steps run."""

    batches: list[int]
    prefill_tokens: int
    tolerance: float
    """Largest gap between the longest context that fits and the shortest that does not, as a share."""
    trials: int
    """Trials at most per batch size."""


@dataclass(frozen=True)
class Plan:
    """The whole plan of a measurement of memory: models, lengths of caches and prompts, and the search for contexts."""

    models: dict[str, ModelPlan]
    cache_lengths: list[Lengths]
    prefill_tokens: list[int]
    decode: list[Step]
    repeats: int
    """Times that the allocator's peak is taken, after one more pass that is not counted."""
    context: ContextPlan
    seed: int


def check(plan: Plan) -> None:
    """Refuse values out of range, and what Transformers or PyTorch does not know."""
    check_values(KIND, plan, LEAST)
    for number, lengths in enumerate(plan.cache_lengths):
        if lengths.short >= lengths.long:
            found = f"got {lengths.short}, expected less than `long` ({lengths.long})"
            raise mistake(KIND, f"cache_lengths[{number}].short: {found}")
    for name, model in plan.models.items():
        configuration(name, model)


def configuration(name: str, model: ModelPlan, kind: str = KIND) -> transformers.PretrainedConfig:
    """Return the configuration of a model in a plan of `kind`; a class or type that there is not is a UserError."""
    found = getattr(transformers, model.architecture, None)
    if not (isinstance(found, type) and issubclass(found, transformers.PretrainedConfig)):
        problem = f"Transformers has no configuration class {model.architecture!r}"
        raise mistake(kind, f"models.{name}.architecture: {problem}")
    if not isinstance(getattr(torch, model.dtype, None), torch.dtype):
        raise mistake(kind, f"models.{name}.dtype: PyTorch has no type {model.dtype!r}")
    return found(**model.config)
