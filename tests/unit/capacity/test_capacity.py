"""The vectorised sweep against the scalar reference, and properties that any capacity model must have."""

import math
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe import params
from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.context import cache_columns
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.memory import ModelMemory, model_memory
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.capacity.reference import evaluate, max_context
from prophet_moe.capacity.sweep import INPUTS, sweep
from prophet_moe.capacity.sweep import evaluate as sweep_evaluate
from prophet_moe.catalog import Architecture, ModelSpec
from prophet_moe.precision import FORMATS
from prophet_moe.predict.context import network_bytes
from prophet_moe.settings.fields import LARGEST_CONTEXT, WeightFormats
from prophet_moe.settings.scenario import CALIBRATED, REPORTED, Activation, Quantile, Routing, Scenario
from prophet_moe.units import GB
from tests import examples  # noqa: F401
from tests.architectures import architectures
from tests.conftest import ROOT
from tests.unit.hardware.test_hardware import MODELS
from tests.unit.hardware.test_roofline import DENSE

STAGED = CALIBRATED.model_copy(update={"lookahead_layers": 3})
"""With a staging buffer, which looks as far ahead as the report does."""
CONFIGURATIONS = 60_000
"""Random configurations per scenario and seed: 120,000 with the two of each below."""

TOKENS = ("baseline_max_context", "prophet_max_context", "baseline_native_context", "prophet_native_context")


def random_memories(count: int, seed: int, whole: bool) -> list[tuple[ModelMemory, int | float, int]]:
    """Random models, devices and batches; whole bytes for published architectures, fractions for the report's."""
    rng = np.random.default_rng(seed)

    def sizes(low: float, high: float) -> list[int | float]:
        drawn = np.exp(rng.uniform(np.log(low), np.log(high), count))
        return [round(x) for x in drawn] if whole else drawn.tolist()

    experts = rng.integers(1, 257, count)
    top_k = np.minimum(rng.integers(1, 9, count), experts)
    moe_layers = rng.integers(1, 100, count)
    encoders = np.where(rng.random(count) < 0.5, 0, rng.integers(0, moe_layers + 1))
    columns = zip(
        experts.tolist(),
        top_k.tolist(),
        moe_layers.tolist(),
        sizes(1e6, 1.3e9),
        sizes(1e8, 1e11),
        sizes(1e4, 5e6),
        sizes(1, 8e7),
        sizes(1, 5e5),
        sizes(1, 1e7),
        rng.integers(512, 300_000, count).tolist(),
        [0] * count,
        [0] * count,
        (rng.random(count) < 0.05).tolist(),
        rng.uniform(0, 3, count).tolist(),
        encoders.tolist(),
        sizes(1e6, 5e7),
        strict=True,
    )
    devices, batches = sizes(3e10, 1.5e11), rng.integers(1, 129, count).tolist()
    return [(ModelMemory(*row), device, batch) for row, device, batch in zip(columns, devices, batches, strict=True)]


def as_columns(configurations) -> dict[str, np.ndarray]:
    """The same configurations as the sweep's columns."""
    rows = [vars(memory) | {"device_bytes": device, "batch": batch} for memory, device, batch in configurations]
    kind = {"forced_not_fitting": bool}
    return {name: np.array([row[name] for row in rows], dtype=kind.get(name, float)) for name in INPUTS}


SWEPT = {
    "calibrated": (CALIBRATED, True),
    "reported": (REPORTED, False),
    "mean": (CALIBRATED.model_copy(update={"resident": "mean"}), True),
    "never_overflows": (CALIBRATED.model_copy(update={"resident": "never_overflows"}), True),
    "median": (
        CALIBRATED.model_copy(update={"resident": Quantile(quantile=0.5), "routing": Routing(law="uniform_occupancy")}),
        True,
    ),
}


@pytest.mark.parametrize(("scenario", "whole"), SWEPT.values(), ids=SWEPT)
def test_sweep_equals_reference(scenario, whole):
    """120,000 random configurations: 1e-12 relative on every metric, and not one floored token count apart."""
    configurations = random_memories(CONFIGURATIONS, seed=20250124, whole=whole)
    expected = [evaluate(memory, device, batch, scenario) for memory, device, batch in configurations]
    for rows, metrics in sweep(as_columns(configurations), scenario):
        for name, values in metrics.items():
            reference = np.array([row[name] for row in expected[rows]], dtype=float)
            if name in TOKENS:
                np.testing.assert_array_equal(values, reference, err_msg=name)
            else:
                scale = _scale(name, expected[rows])
                np.testing.assert_allclose(
                    values.astype(float) / scale, reference / scale, rtol=1e-12, atol=1e-12, err_msg=name
                )


def _scale(name: str, rows: list[dict]) -> np.ndarray | float:
    """What a metric is relative to: differences of large numbers against these, others against themselves."""
    if name.endswith("_free_bytes") or name == "expert_savings_bytes":
        return np.array([row["baseline_total_bytes"] + abs(row["baseline_free_bytes"]) for row in rows])
    return {"expert_savings_pct": 100.0}.get(name, 1.0)


def test_sweep_equals_reference_for_experts_kept_by_choice():
    """Any number of resident experts, with and without staging buffer and predictor."""
    rng = np.random.default_rng(7)
    configurations = random_memories(2_000, seed=7, whole=True)
    resident = np.array([rng.integers(memory.top_k, memory.experts + 1) for memory, _, _ in configurations])
    staging, predictor = rng.random((2, len(resident))) < 0.5
    chosen = zip(configurations, resident.tolist(), staging.tolist(), predictor.tolist(), strict=True)
    expected = [evaluate(*one, CALIBRATED, *kept) for one, *kept in chosen]
    found = sweep_evaluate(as_columns(configurations), CALIBRATED, resident, staging, predictor)
    for name in ("prophet_max_context", "staging_bytes", "prophet_total_bytes", "resident_experts"):
        np.testing.assert_array_equal(found[name], [row[name] for row in expected], err_msg=name)


FORMAT_NAMES = st.sampled_from(sorted(FORMATS))
COMPONENTS = st.dictionaries(st.sampled_from(list(WeightFormats.model_fields)), FORMAT_NAMES)
"""Formats of single components."""


@st.composite
def scenarios(draw) -> Scenario:
    """Any scenario on published architectures."""
    rules = ["mean", "fractional", "never_overflows"]
    routing = draw(
        st.sampled_from(
            [
                Routing(),
                Routing(law="uniform_occupancy"),
                Routing(law="power_law", exponent=draw(st.floats(0.3, 1.0))),
            ]
        )
    )
    if routing.law != "power_law":
        rules.append(Quantile(quantile=draw(st.sampled_from([0.5, 0.9, 0.99]))))
    return replace_fields(
        CALIBRATED,
        routing=routing,
        resident=draw(st.sampled_from(rules)),
        activation=Activation(prefill_chunk_tokens=draw(st.integers(1, 16384))),
        lookahead_layers=draw(st.integers(0, 8)),
        precision=draw(FORMAT_NAMES | st.just("shipped") | COMPONENTS),
        kv_format=draw(st.sampled_from(["fp32", "bf16", "fp8", "q8_0"])),
        state_format=draw(st.sampled_from(["own", "fp32", "bf16"])),
        draft_layers=draw(st.booleans()),
        mla_cache=draw(st.sampled_from(["latent", "decompressed"])),
    )


def replace_fields(scenario: Scenario, **values) -> Scenario:
    """The scenario with other values, validated."""
    return Scenario.model_validate(dict(scenario) | values)


def spec_of(arch: Architecture) -> ModelSpec:
    """A model that the report does not cover, whose experts are shipped in 4 bits."""
    return ModelSpec.model_construct(architecture=arch, reported=None, precision=WeightFormats(routed_experts="mxfp4"))


@settings(max_examples=60, deadline=None)
@given(scenario=scenarios(), device_gb=st.integers(8, 200), batch=st.integers(1, 256), data=st.data())
def test_properties(scenario, device_gb, batch, data):
    """More memory never shortens a context, a larger batch never lengthens it, experts kept are between k and E."""
    spec = spec_of(MODELS[data.draw(st.sampled_from(sorted(MODELS)))])
    memory = model_memory(spec, scenario)
    memory = replace(memory, popularity_cv=data.draw(st.floats(0, 3)))
    here = evaluate(memory, device_gb * GB, batch, scenario)
    larger = evaluate(memory, (device_gb + 8) * GB, batch, scenario)
    more = evaluate(memory, device_gb * GB, batch + 1, scenario)
    for name in ("baseline_max_context", "prophet_max_context"):
        assert larger[name] >= here[name] >= more[name]
    assert memory.top_k * (1 - 1e-12) <= here["unique_experts"] <= memory.experts
    needed = min(memory.experts, memory.top_k * batch)
    assert here["resident_experts"] <= needed + 1e-9
    if scenario.resident in ("mean", "fractional", "never_overflows"):
        assert here["unique_experts"] <= here["resident_experts"] + 1e-9
    else:
        assert here["unique_experts"] - 1 < here["resident_experts"]
    assert here["prophet_expert_bytes"] <= here["baseline_expert_bytes"]
    assert 0 <= here["request_dedup"] + 1e-12 < 1
    if here["resident_experts"] == memory.experts:
        assert here["staging_bytes"] == 0
        assert here["prophet_max_context"] <= here["baseline_max_context"]
    assert math.isnan(here["kv_extension_factor"]) == (not here["baseline_fits"])


@settings(deadline=None)
@given(scenarios(), architectures(), st.integers(0, 10**7), st.sampled_from([1, 2, 16]), st.floats(0, 3))
def test_sweep_of_any_architecture_equals_the_reference(scenario, arch, left, batch, popularity_cv):
    """Every kind of layer under every rule: all metrics agree, and nothing is divided by 0 on the way."""
    memory = replace(model_memory(spec_of(arch), scenario), popularity_cv=popularity_cv)
    empty = evaluate(memory, 0, batch, scenario)
    device = math.ceil(-empty["prophet_free_bytes"]) + left
    configuration, expected = (memory, device, batch), evaluate(memory, device, batch, scenario)
    with np.errstate(divide="raise", invalid="raise"):
        found = sweep_evaluate(as_columns([configuration]) | cache_columns([memory.further_caches]), scenario)
    for name, (value,) in found.items():
        if name in TOKENS:
            assert value == expected[name], name
        else:
            scale = _scale(name, [expected])
            np.testing.assert_allclose(value / scale, expected[name] / scale, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("rule", ["fractional", Quantile(quantile=0.9)], ids=str)
def test_windows_count_under_every_rule_of_residents(rule):
    """gpt-oss-120b on 80 GB: the 18 layers that keep 128 tokens take what they hold, whatever is resident."""
    scenario = replace_fields(CALIBRATED, resident=rule, precision="shipped")
    memory = model_memory(spec_of(MODELS["gpt-oss-120b"]), scenario)
    got = evaluate(memory, 80 * GB, 16, scenario)
    bounded = 16 * 18 * 128 * 2 * 2 * 8 * 64
    expected = (got["prophet_free_bytes"] - bounded) // (16 * 18 * 2 * 2 * 8 * 64)
    assert got["prophet_max_context"] == expected > 128


@given(architectures(), scenarios())
def test_draft_layers_take_memory_when_they_are_resident(arch, scenario):
    with_draft, without = (
        model_memory(spec_of(arch), replace_fields(scenario, draft_layers=draft)) for draft in (True, False)
    )
    precision = scenario.precision_of(spec_of(arch).precision)
    assert with_draft.non_expert_bytes - without.non_expert_bytes == params.draft_bytes(arch, precision)
    both = arch.model_copy(update={"pattern": arch.pattern + (arch.draft.pattern if arch.draft else [])})
    alone = replace_fields(scenario, draft_layers=False)
    deeper = model_memory(spec_of(both), alone)
    assert with_draft.cached_bytes(100) == deeper.cached_bytes(100) >= without.cached_bytes(100)
    assert with_draft.state_bytes_per_sequence == deeper.state_bytes_per_sequence
    assert with_draft.expert_bytes == without.expert_bytes and with_draft.moe_layers == without.moe_layers


def test_dense_model_has_nothing_to_offload():
    """Prophet keeps what the baseline keeps, and no predictor."""
    memory = model_memory(spec_of(DENSE), CALIBRATED)
    got = evaluate(memory, 80 * GB, 16, CALIBRATED)
    assert memory.non_expert_bytes == 2 * memory.total_params == 2 * memory.active_params
    assert got["prophet_max_context"] == got["baseline_max_context"] > 0
    assert (got["baseline_expert_bytes"], got["expert_savings_pct"], got["staging_bytes"]) == (0, 0, 0)
    assert memory.predictor_bytes == 0 and got["kv_extension_factor"] == 1


@pytest.mark.parametrize("unknown", ["kv_bytes_per_token", "non_expert_bytes"])
def test_unknown_constant_of_the_report_fits_no_context(models, unknown):
    memory = replace(model_memory(models["Mixtral-8x7B"], REPORTED), **{unknown: math.nan})
    assert not evaluate(memory, 80 * GB, 1, REPORTED)["baseline_fits"]
    ((_, swept),) = sweep(as_columns([(memory, 80 * GB, 1)]), REPORTED)
    assert not swept["baseline_fits"].any()


@given(free=st.integers(-(2**40), 2**50), batch=st.integers(1, 4096), kv=st.integers(1, 10**7))
def test_the_longest_context_fits_and_one_token_more_does_not(models, free, batch, kv):
    memory = replace(model_memory(models["Mixtral-8x7B"], CALIBRATED), kv_bytes_per_token=kv)
    tokens = max_context(memory, free, batch)
    assert tokens == 0 or tokens * batch * kv <= free
    assert tokens == LARGEST_CONTEXT or (tokens + 1) * batch * kv > free


def test_one_token_activates_exactly_k_experts(models):
    """Rounding up must not turn the law's k, which floating point may miss by an ulp, into k + 1."""
    for spec in models.values():
        memory = model_memory(spec, CALIBRATED)
        assert evaluate(memory, 80 * GB, 1, CALIBRATED)["resident_experts"] == memory.top_k


def test_worked_example(models):
    """DeepSeek-MoE-16B by hand: 27 MoE layers x 64 experts of 3 x 2048 x 1408 weights of two bytes."""
    memory = model_memory(models["DeepSeek-MoE-16B"], STAGED)
    got = evaluate(memory, 80 * GB, 1, STAGED)
    assert got["baseline_expert_bytes"] == 27 * 64 * 3 * 2048 * 1408 * 2
    assert got["prophet_expert_bytes"] == 27 * 6 * 3 * 2048 * 1408 * 2
    assert got["staging_bytes"] == 3 * 6 * 3 * 2048 * 1408 * 2
    assert got["kv_cache_bytes"] == 4096 * 2 * 16 * 128 * 28 * 2
    assert got["expert_savings_pct"] == pytest.approx(100 * 58 / 64)


def test_encoder_of_switch_keeps_all_experts(models):
    """Encoding a source needs nearly all experts: 6 of Switch-Base's 12 MoE layers keep 128, the others u(B)."""
    memory = model_memory(models["Switch-Base-128"], STAGED)
    got = evaluate(memory, 80 * GB, 1, STAGED)
    expert = 2 * 2 * 768 * 3072
    assert (memory.moe_layers, memory.encoder_moe_layers) == (12, 6)
    assert got["prophet_expert_bytes"] == (6 * 128 + 6 * 1) * expert
    assert got["staging_bytes"] == 3 * expert, "three layers ahead, one expert each"
    assert got["expert_savings_pct"] == pytest.approx(100 * got["expert_savings_bytes"] / got["baseline_expert_bytes"])
    assert all(
        model_memory(models[name], CALIBRATED).encoder_moe_layers == 0 for name in ("DBRX-132B", "Jamba-1.5-Large")
    )


def test_extension_of_switch_with_its_encoder_resident(models, gpus, fitted_cvs, experiment):
    """An audit by hand, at ceil(u) experts of traces: 1.71, not 2.42, for Switch-Large, 1.19, not 1.38, for -Base."""
    mean_rule = CALIBRATED.model_copy(update={"resident": "mean"})
    chosen = {name: models[name] for name in ("Switch-Large-128", "Switch-Base-128")}
    grid = capacity_grid(Configured(chosen, gpus, mean_rule, fitted_cvs), experiment.batch_sizes)
    mean = grid[grid["case"] == ESTIMATE].groupby("model")["kv_extension_factor"].mean()
    assert mean["Switch-Large-128"] == pytest.approx(1.71, abs=0.01)
    assert mean["Switch-Base-128"] == pytest.approx(1.19, abs=0.01)


def test_predictor_of_each_model_has_its_own_size(models):
    """What table 6 counts for E experts and as many layers, at the hidden units that config/predictor.yaml trains."""
    plan = yaml.safe_load((ROOT / "config/predictor.yaml").read_text())
    assert CALIBRATED.predictor_hidden == plan["hidden"]
    found = {name: model_memory(spec, CALIBRATED).predictor_bytes for name, spec in models.items()}
    assert found["OLMoE-1B-7B"] == network_bytes(64, 16, 96, 3) == 2 * 3 * 16 * (5 * 64 * 96 + 96 + 64)
    assert found["Switch-Base-128"] == network_bytes(128, 6, 96, 3), "the encoder's experts are not predicted"
    assert found["DeepSeek-V3-671B"] / 1e6 == pytest.approx(42.9, abs=0.05)
    assert {model_memory(spec, REPORTED).predictor_bytes for spec in models.values()} == {7_200_000}


def test_models_outside_the_report_have_no_reported_memory(models):
    unreported = models["DBRX-132B"].model_copy(update={"reported": None})
    assert model_memory(unreported, REPORTED) is None
    assert model_memory(unreported, CALIBRATED) is not None
