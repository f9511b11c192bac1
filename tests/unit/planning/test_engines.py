"""Every engine's own unit, and what it is told."""

import re

import pytest

from prophet_moe.planning import engines
from prophet_moe.planning.solve import split
from prophet_moe.units import GIB
from tests.unit.planning.situations import situation

EXPERT, DEVICE, ROOM = 0.25 * GIB, 20 * GIB, 16 * GIB


def told(slots: int) -> dict[str, engines.EngineCommand]:
    """The commands of a split of 16 experts in 4 layers at 100 tokens, by engine."""
    found = split(situation(), 100, slots)
    return {each.engine: each for each in engines.commands(found, "me/m", EXPERT, DEVICE, ROOM)}


def test_units_of_one_split():
    found = split(situation(), 100, 42)
    assert engines.per_layer(found) == 10
    assert engines.global_experts(found) == 42
    assert engines.projections_per_layer(found) == 31
    assert engines.layers_on_host(found) == 2
    assert engines.host_gib(found, EXPERT) == 6
    assert engines.memory_ratio(found, EXPERT, DEVICE) == 0.52
    assert engines.budget_pct(found, EXPERT, ROOM) == 65


@pytest.mark.parametrize(
    ("engine", "value", "flag"),
    [
        ("vLLM", 10, "--moe-expert-cache-size 10"),
        ("llama.cpp", 10, "--moe-expert-cache 10"),
        ("llama.cpp, stock", 2, "--n-cpu-moe 2"),
        ("FreeToken", 42, "--moe-cache-size 42"),
        ("KTransformers", 10, "--kt-num-gpu-experts 10"),
        ("SGLang", 6, "--cpu-offload-gb 6"),
        ("MoE-Infinity", 0.52, '"device_memory_ratio": 0.52'),
        ("imp", 65, "moe.expert_cache_budget_pct=65"),
    ],
)
def test_engine_is_told_its_own_unit(engine, value, flag):
    found = told(42)[engine]
    assert found.value == value and flag in found.command and found.counter


def test_slots_never_exceed_the_plan_in_any_unit():
    for slots in range(8, 64):
        found = split(situation(), 100, slots)
        assert engines.per_layer(found) * 4 <= slots
        assert engines.projections_per_layer(found) * 4 <= 3 * slots
        assert (4 - engines.layers_on_host(found)) * 16 <= slots
        assert engines.host_gib(found, EXPERT) * GIB >= (64 - slots) * EXPERT
        assert engines.memory_ratio(found, EXPERT, DEVICE) * DEVICE <= slots * EXPERT


def test_freetoken_refuses_below_a_layer_and_warns_below_two():
    assert told(12)["FreeToken"].command == "" and "fewer than E = 16" in told(12)["FreeToken"].note
    assert "below 2E = 32" in told(20)["FreeToken"].note
    assert "--disable-moe-prefill-overlap" in told(20)["FreeToken"].command
    assert "--disable-moe-prefill-overlap" not in told(40)["FreeToken"].command
    assert "below" not in told(40)["FreeToken"].note


def test_all_experts_need_no_flag():
    found = told(64)
    assert "--moe-expert-cache-size" not in found["vLLM"].command
    assert "--n-cpu-moe" not in found["llama.cpp, stock"].command
    assert "nothing is offloaded" in found["FreeToken"].counter


def test_counters_state_the_prediction():
    assert "0.8" in told(32)["imp"].counter
    assert "0.2" in told(32)["FreeToken"].counter


def test_every_command_names_its_source():
    for each in told(42).values():
        assert re.search(r"^[\w.-]+/[\w.-]+(#\d+|: [\w/.-]+)", each.source), each.engine
    assert set(told(42)) == set(engines.SOURCES)


def test_freetoken_tokens_fill_whole_pages():
    assert "--num-tokens 128 " in told(42)["FreeToken"].command


def test_imp_takes_at_most_its_largest_share():
    found = split(situation(), 100, 63)
    assert engines.budget_pct(found, EXPERT, ROOM) == engines.LARGEST_SHARE == 90
