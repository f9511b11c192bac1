"""What recording costs: decode steps with and without the hooks, taken in turns.

`collect` measures it of models with random weights, so that nothing is downloaded.
"""

import statistics
import time
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prophet_moe.checks import check_values
from prophet_moe.collect import allocation, machine, measurement
from prophet_moe.collect.decoding import Decoding, Prompt, passes
from prophet_moe.collect.memory.plan import ModelPlan, configuration
from prophet_moe.collect.memory.subject import build
from prophet_moe.collect.recorder import Recorder, moe_layers

KIND = "overhead"
LEAST = {"rounds": 2, "seed": 0}
"""The least of whole numbers in the plan that may not start at 1: quartiles need two rounds."""
PROMPT_TOKENS = 64


@dataclass(frozen=True)
class Plan:
    """The whole plan of config/measurements/overhead.yaml: models, batch sizes, and how often a run is repeated."""

    models: dict[str, ModelPlan]
    batches: list[int]
    rounds: int
    """Pairs of runs, with hooks and without."""
    steps: int
    """Decode steps of a run."""
    seed: int


def collect(plan: Plan, folder: Path) -> None:
    """Measure what recording costs every model of `plan`, and write overhead.csv to `folder`."""
    check_values(KIND, plan, LEAST)
    for name, model in plan.models.items():
        configuration(name, model, KIND)
    measurement.measure(
        folder,
        KIND,
        plan,
        {f"{name}-b{batch}": partial(_rows, plan, name, batch) for name, batch in product(plan.models, plan.batches)},
    )


def _rows(plan: Plan, name: str, batch: int) -> measurement.Rows:
    """Return the row of one model at one batch size."""
    torch.manual_seed(plan.seed)
    allocation.release()
    model = build(name, plan.models[name], machine.device())
    (measured,) = measure(model, (batch,), rounds=plan.rounds, steps=plan.steps)
    low, high = measured.pop("ratio_quartiles")
    return [{"model": name, "dtype": plan.models[name].dtype} | measured | {"ratio_low": low, "ratio_high": high}]


@torch.no_grad()
def measure(model: torch.nn.Module, batches: tuple[int, ...], *, rounds: int, steps: int) -> list[dict[str, Any]]:
    """Time `steps` decode steps with and without hooks, by batch size, and their ratio over `rounds` pairs.

    The order within a pair alternates; `ratio` is the median of the pairs' ratios, low and high their quartiles.
    """
    layers = moe_layers(model)
    results = []
    for batch in batches:
        _timed(model, layers, batch, steps, hooked=True)
        pairs = []
        for number in range(rounds):
            taken = {
                hooked: _timed(model, layers, batch, steps, hooked=hooked)
                for hooked in (number % 2 == 0, number % 2 == 1)
            }
            pairs.append((taken[True], taken[False]))
        low, ratio, high = statistics.quantiles([hooked / plain for hooked, plain in pairs], n=4)
        results.append(
            {
                "batch": batch,
                "steps": steps,
                "rounds": rounds,
                "ratio": round(ratio, 4),
                "ratio_quartiles": [round(low, 4), round(high, 4)],
                "milliseconds_per_step_plain": round(1e3 * statistics.median(plain for _, plain in pairs) / steps, 4),
            }
        )
    return results


def _timed(model: torch.nn.Module, layers: list, batch: int, steps: int, *, hooked: bool) -> float:
    vocabulary = model.config.get_text_config().vocab_size
    random = np.random.default_rng(0)
    prompts = [
        Prompt(
            number,
            random.integers(vocabulary, size=PROMPT_TOKENS).tolist(),
            random.integers(vocabulary, size=steps).tolist(),
        )
        for number in range(batch)
    ]
    recorder = Recorder(model, layers, lambda ids, label: None) if hooked else None
    begun = 0.0
    for number, (now, run) in enumerate(passes(model, prompts, Decoding("text", steps, 0), seed=0)):
        if number == 1:
            _wait(model)
            begun = time.perf_counter()
        run()
        if recorder:
            recorder.end_pass(now.tokens, now.rows, None)
    if recorder:
        recorder.flush()
    _wait(model)
    seconds = time.perf_counter() - begun
    if recorder:
        recorder.close()
    return seconds


def _wait(model: torch.nn.Module) -> None:
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()
