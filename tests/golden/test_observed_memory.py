"""Predicted memory against what others measured: the goals of the project, row by row, and what misses them."""

from statistics import mean, median

import pytest

from prophet_moe.observed.context import load_context
from prophet_moe.observed.memory import POOL_GIB, predicted, within_goal
from prophet_moe.observed.schema import MEMORY, read_observations
from tests.conftest import ROOT

ROWS = read_observations(ROOT / "resources/observations/memory.csv", MEMORY)
FOUND = predicted(ROWS, load_context(ROOT))
CLEAN = {(row["id"], row["quantity"]): row for row in FOUND[FOUND["clean"]].to_dict("records")}
MISSED = {("m004", "weights"), ("m004", "kv_pool"), ("m004", "kv_tokens"), ("m064", "weights")}
"""Rows beyond their goal. m004 prints 7.16 GiB outside of PyTorch and workspaces of latent attention that nothing here
gives; m064 is a difference of free memory, 0.03 GiB above the parameters."""
EXACT = {"m008", "m009", "m021", "m030", "m031", "m035", "m041", "m045", "m046"}
"""Starts of vLLM that print the parameters and nothing else: 0.02 % is the rounding of the print."""
BYTES = {f"m{n:03}" for n in (4, 7, 8, 19, 20, 29, 31, 58, 61, 64, 65, 69, 70, 71, 72, 74, 75, 78, 79, 80, 81, 82, 85)}
"""Rows whose bytes per token follow from pool and tokens."""


@pytest.mark.parametrize("key", CLEAN, ids="-".join)
def test_clean_row_is_within_its_goal(key):
    if key in MISSED:
        assert within_goal(CLEAN[key]) is False, "it meets its goal now: take it out of MISSED"
    else:
        assert within_goal(CLEAN[key]) is not False


def test_weights_are_exact_to_the_print():
    errors = {key[0]: abs(row["error_pct"]) for key, row in CLEAN.items() if key[1] == "weights"}
    assert set(errors) >= EXACT
    assert max(errors[name] for name in EXACT) <= 0.02
    assert median(errors.values()) <= 0.02


def test_cache_bytes_are_within_the_rounding_of_the_print():
    assert {key[0] for key in CLEAN if key[1] == "kv_bytes_per_token"} >= BYTES


def test_models_that_did_not_fit_are_told():
    assert CLEAN["m043", "fits"]["predicted"] == 0
    assert CLEAN["m044", "fits"]["predicted"] == 0


def test_budgets_hold_with_the_printed_runtime_terms():
    """Weights and share alone: what a log prints of libraries and activations is taken as it stands."""
    apart = [row["predicted"] - row["measured"] for key, row in CLEAN.items() if key[1] == "kv_pool_given_runtime"]
    assert len(apart) >= 3
    assert sorted(map(abs, apart))[-2] <= 0.05


def test_sampler_constant_holds_leaving_a_start_out():
    entries = {"m008": 151936 * 256, "m009": 151936 * 1024, "m019": 151936 * 1024}
    printed = {"m008": 1.40, "m009": 5.58, "m019": 5.57}
    for name, gib in printed.items():
        others = mean(printed[other] / entries[other] for other in printed if other != name)
        assert abs(others * entries[name] - gib) <= POOL_GIB / 3


def test_left_out_rows_say_why():
    out = FOUND[~FOUND["clean"]]
    assert len(out) and out["left_out"].str.len().min() > 5
