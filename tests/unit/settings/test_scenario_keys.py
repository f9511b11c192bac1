"""Every key of a scenario moves the outputs that it must, and no other: none is silently without effect."""

import json
from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel

from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.under_engine import EngineChoice
from prophet_moe.catalog.architecture import Draft
from prophet_moe.catalog.engine import find_engine
from prophet_moe.hardware.pace import ProfilePace
from prophet_moe.hardware.profile import datasheet_profile
from prophet_moe.offload.simulator.timing import times_of
from prophet_moe.precision import Precision
from prophet_moe.routing.popularity_cv import read_popularity_cvs
from prophet_moe.routing.published import PUBLISHED, read_published
from prophet_moe.routing.published_cv import popularity_cv
from prophet_moe.settings.experiment import DecodeStep
from prophet_moe.settings.fields import WeightFormats
from prophet_moe.settings.scenario import CALIBRATED, Formats, Scenario
from prophet_moe.units import MIB
from studies.decode_steps.compute import decode_steps
from tests.conftest import ROOT

GPU = "A100-80GB"
NAMES = ("Mixtral-8x7B", "Jamba-1.5-Large", "DeepSeek-V3-671B", "Switch-Base-128", "OLMoE-1B-7B")
"""Models with grouped queries, a recurrent state, a latent, an encoder, and room for all experts and draft layers."""

PUBLISHED_ROWS = read_published(ROOT / PUBLISHED)
MEMORY, STEP, SIMULATION = "memory", "decode step", "simulation"
EVERYTHING, ROUTED = {MEMORY, STEP, SIMULATION}, {MEMORY, STEP}

EFFECTS: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    "title": ("another", {}, set()),
    "engine": ("vllm-0.10", {}, {MEMORY}),
    "architecture": ("reported", {}, {MEMORY}),
    "device_memory": ("nominal", {}, {MEMORY}),
    "precision": ("int8", {}, EVERYTHING),
    "kv_format": ("fp8", {}, EVERYTHING),
    "state_format": ("bf16", {}, EVERYTHING),
    "draft_layers": (True, {}, {MEMORY}),
    "mla_cache": ("decompressed", {}, EVERYTHING),
    "routing.law": ("uniform_occupancy", {}, ROUTED),
    "routing.variation": (1.5, {}, ROUTED),
    "routing.text": ("prompts", {"routing.variation": "published"}, ROUTED),
    "routing.batching": ("prefill", {"routing.variation": "fitted"}, ROUTED),
    "routing.exponent": (0.8, {"routing.law": "power_law", "resident": "mean"}, ROUTED),
    "resident": ("mean", {}, {MEMORY}),
    "usable_memory_share": (0.9, {}, {MEMORY}),
    "activation.rule": ("per_total_parameters", {}, {MEMORY}),
    "activation.prefill_chunk_tokens": (512, {}, {MEMORY}),
    "activation.gb_per_billion_parameters": (0.02, {"activation.rule": "per_total_parameters"}, {MEMORY}),
    "workspace_mib": (64, {}, {MEMORY}),
    "runtime_reserve": ("assumed", {}, {MEMORY}),
    "runtime_reserve_mib": (2048, {"runtime_reserve": "assumed"}, {MEMORY}),
    "predictor_mb": (7.2, {}, {MEMORY}),
    "predictor_hidden": (192, {}, {MEMORY}),
    "lookahead_layers": (1, {}, {MEMORY}),
    "undefined_extension": ("zero", {}, {MEMORY}),
}
"""By key another value, what it needs of other keys, and the outputs that move.

Time is always that of the published architecture. What of a routing law reaches a simulation is the trace itself.
"""


def leaves(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The keys of a settings class, those of its sections with a dot."""
    keys = []
    for name, field in model.model_fields.items():
        section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        keys += leaves(field.annotation, f"{prefix}{name}.") if section else [prefix + name]
    return keys


def changed(scenario: Scenario, values: dict[str, Any]) -> Scenario:
    """The scenario with other values by dotted key, validated."""
    content = scenario.model_dump()
    for key, value in values.items():
        *sections, name = key.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[name] = value
    return Scenario.model_validate(content)


@pytest.fixture(scope="module")
def outputs_of(models, gpus):
    """By scenario the capacity grid, table 7, and the times of simulated devices, on one GPU that was measured."""
    chosen, spec = {name: models[name] for name in NAMES}, gpus[GPU]
    drafting = chosen["OLMoE-1B-7B"].architecture.model_copy(update={"draft": Draft(pattern=["M"])})
    chosen["OLMoE-1B-7B"] = chosen["OLMoE-1B-7B"].model_copy(update={"architecture": drafting})
    profile = datasheet_profile(GPU, spec)
    pace = ProfilePace(profile)

    def outputs(scenario: Scenario) -> dict[str, pd.DataFrame]:
        popularity_cvs = {}
        if scenario.fits_published:
            shapes = {name: model.architecture.moe for name, model in chosen.items()}
            popularity_cvs = {
                name: popularity_cv(name, moe.experts, moe.top_k, PUBLISHED_ROWS, domain=scenario.routing.text)
                for name, moe in shapes.items()
            }
        elif scenario.fits_routing:
            popularity_cvs = read_popularity_cvs(ROOT / "tables/data/routing_variation.csv", scenario.routing.batching)
        times = {
            name: times_of(model.architecture, pace, 4, 16, 4096, scenario.precision_of(model.precision), 4.0)
            for name, model in chosen.items()
        }
        simulated = {
            name: [*took.non_expert_seconds, *took.expert_seconds, *took.transfer_seconds]
            for name, took in times.items()
        }
        engine = EngineChoice(find_engine(scenario.engine, ROOT / "config/engines"))
        configured = Configured(chosen, {GPU: spec}, scenario, popularity_cvs, {GPU: 600 * MIB}, engine)
        return {
            MEMORY: capacity_grid(configured, [1, 16]),
            STEP: decode_steps(configured, {GPU: profile}, [1, 16], DecodeStep()),
            SIMULATION: pd.DataFrame(simulated),
        }

    return outputs


def test_every_scenario_key_has_an_expected_effect():
    assert set(EFFECTS) == set(leaves(Scenario))


@pytest.mark.parametrize("key", EFFECTS)
def test_scenario_key_moves_what_it_must(key, outputs_of):
    value, given, expected = EFFECTS[key]
    before, after = changed(CALIBRATED, given), changed(CALIBRATED, given | {key: value})
    assert before != after
    first, second = outputs_of(before), outputs_of(after)
    assert {name for name in first if not first[name].equals(second[name])} == expected


def test_formats_survive_the_parameters_of_a_job():
    """What rules pass to scripts as JSON gives the precision of the scenario back."""
    formats = {"precision": {"routed_experts": "mxfp4"}, "kv_format": "fp8", "state_format": "bf16"}
    scenario = changed(CALIBRATED, formats | {"mla_cache": "decompressed"})
    given = Formats.model_validate(json.loads(scenario.model_dump_json(include=set(Formats.model_fields))))
    expected = Precision("bf16", {"routed_experts": "mxfp4"}, "fp8", "bf16", "decompressed")
    assert given.precision_of(WeightFormats()) == scenario.precision_of(WeightFormats()) == expected


def test_shipped_precision_is_that_of_the_model():
    shipped = WeightFormats(default="fp8_block128", embeddings="bf16")
    scenario = changed(CALIBRATED, {"precision": "shipped"})
    assert scenario.precision_of(shipped) == Precision("fp8_block128", {"embeddings": "bf16"})
    assert CALIBRATED.precision_of(shipped) == Precision()
