"""Rows of observed memory as questions to the engine model, and the rules that leave quantities out."""

import math

import pandas as pd
import pytest

from prophet_moe.observed.context import load_context
from prophet_moe.observed.memory import case_of, kv_format, predicted, weight_formats, within_goal
from prophet_moe.observed.schema import MEMORY, read_observations
from prophet_moe.precision import FORMATS
from tests.conftest import ROOT
from tests.unit.observed.builders import ROW, csv_of

CONTEXT = load_context(ROOT)
NUMBERS = {column.name for column in MEMORY.columns if column.kind != "text"}


@pytest.fixture
def found(tmp_path):
    """Predict a row with other cells; quantities by name."""

    def of(**changes) -> dict[str, dict]:
        path = tmp_path / "rows.csv"
        path.write_text(csv_of(ROW | {name: str(cell) for name, cell in changes.items()}))
        frame = predicted(read_observations(path, MEMORY), CONTEXT)
        return {row["quantity"]: row for row in frame.to_dict("records")}

    return of


def test_weights_of_a_row_are_those_of_the_model(found):
    row = found()["weights"]
    assert row["predicted"] == pytest.approx(56.8803, abs=1e-4)
    assert row["clean"] and within_goal(row)


def test_quantities_are_those_that_a_row_states(found):
    assert set(found()) == {"weights"}
    more = found(kv_cache_gib_per_gpu=10, kv_tokens=109200, non_torch_gib=0.2, activation_peak_gib=2, cudagraph_gib=1)
    assert set(more) == {
        "weights", "kv_bytes_per_token", "kv_pool", "kv_pool_given_runtime", "kv_tokens", "fits", "non_torch",
        "activations", "graphs",
    }  # fmt: skip
    assert more["fits"]["predicted"] == more["fits"]["measured"] == 1


def test_bytes_per_token_are_allowed_the_rounding_of_the_print(found):
    row = found(kv_cache_gib_per_gpu=10.01, kv_tokens=109226)["kv_bytes_per_token"]
    assert abs(row["error_pct"]) < row["allowed_pct"] < 0.2
    assert within_goal(row)
    off = found(kv_cache_gib_per_gpu=10.5, kv_tokens=109226)["kv_bytes_per_token"]
    assert within_goal(off) is False


@pytest.mark.parametrize(
    ("changes", "quantity", "reason"),
    [
        ({"model": "GLM-5.2"}, "weights", "not in the catalogue"),
        ({"engine": "exllama"}, "weights", "no profile of engine exllama"),
        ({"weight_dtype": "awq-int4"}, "weights", "bytes of weights in awq-int4 unknown"),
        ({"weight_dtype": ""}, "weights", "unnamed format"),
        ({"left_out": "weights: a copy"}, "weights", "a copy"),
        ({"left_out": "all: a copy"}, "weights", "a copy"),
        ({"notes": "text of a screenshot, retyped"}, "weights", "retyped"),
        ({"gpu": "Gaudi 3"}, "weights", "no profile describes an engine on this device"),
        ({"notes": "cpu_offload 30 GB"}, "weights", "in host memory"),
        ({"kv_cache_gib_per_gpu": 10, "gpu_memory_utilization": ""}, "kv_pool", "utilization is not printed"),
        ({"kv_cache_gib_per_gpu": 10, "total_gpu_gib": "", "gpu": ""}, "kv_pool", "memory of the GPU is not known"),
        ({"kv_cache_gib_per_gpu": 10, "engine_version": ""}, "kv_pool", "version of the engine is not printed"),
        ({"kv_cache_gib_per_gpu": 10, "gpu": "GB10 (unified memory)"}, "kv_pool", "unified memory"),
        ({"kv_cache_gib_per_gpu": 10, "kv_tokens": 9, "kv_dtype": "int4"}, "kv_bytes_per_token", "in int4 unknown"),
    ],
)  # fmt: skip
def test_quantity_that_must_not_be_used_says_why(changes, quantity, reason, found):
    row = found(**changes)[quantity]
    assert not row["clean"]
    assert reason in row["left_out"]


@pytest.mark.parametrize("notes", ["does not fit: out of memory while loading", "reported in prose; out of memory"])
def test_model_that_did_not_fit_is_predicted_not_to(notes, found):
    row = found(notes=notes, gpu="A100-40GB", total_gpu_gib=39.5, weights_gib_per_gpu="")["fits"]
    assert (row["measured"], row["predicted"]) == (0, 0)
    assert within_goal(row)


def test_size_in_a_name_is_enough_to_tell_that_none_fits(found):
    row = found(notes="out of memory", gpu="V100-16GB", total_gpu_gib="")["fits"]
    assert row["predicted"] == 0 and row["clean"]


def test_pool_within_three_tenths_of_a_gib_is_right():
    row = {"quantity": "kv_pool", "measured": 10.0, "error_pct": 2.9, "allowed_pct": 0.1}
    assert within_goal(row | {"predicted": 10.29})
    assert within_goal(row | {"predicted": 10.31}) is False
    assert within_goal(row | {"predicted": math.nan}) is None
    assert within_goal(row | {"quantity": "graphs", "predicted": 10.0}) is None


@pytest.mark.parametrize("model", ["gpt-oss-120b", "Qwen3-Next-80B-A3B"])
def test_concurrency_tells_the_tokens_of_windows_and_states(model, found):
    printed = {"kv_cache_gib_per_gpu": 10, "kv_tokens": 27_000, "max_model_len": 32768, "max_concurrency": 3.33}
    assert found(**printed)["kv_tokens"]["measured"] == 27_000
    shared = found(model=model, **printed)["kv_tokens"]
    assert shared["measured"] == pytest.approx(3.33 * 32768)
    assert shared["allowed_pct"] == pytest.approx(100 * 0.01 / 3.33)


def test_one_sequence_of_windows_takes_what_an_engine_printed(found):
    """A start of gpt-oss-120b printed 4.54 GiB for a sequence of 131072: 4.5 and 73 blocks of every window."""
    row = found(
        model="gpt-oss-120b", weight_dtype="mxfp4", weights_gib_per_gpu="", kv_cache_gib_per_gpu=4.54,
        max_model_len=131072, max_concurrency=1.0, max_num_batched_tokens=1024,
    )["kv_bytes_per_token"]  # fmt: skip
    assert row["predicted"] * 131072 / 2**30 == pytest.approx(4.54, abs=0.005)
    assert row["clean"]


def test_windows_by_unknown_rules_are_left_out(found):
    printed = {"engine": "sglang", "kv_cache_gib_per_gpu": 10, "kv_tokens": 27_000, "weights_gib_per_gpu": ""}
    assert "windows are kept by rules" in found(model="gpt-oss-120b", **printed)["kv_bytes_per_token"]["left_out"]


def test_stage_that_is_not_told_is_the_nearest(found):
    row = found(model="DeepSeek-V3", engine_version="0.6.6", weight_dtype="fp8", tp=16, pp=2, total_gpu_gib="", gpu="")
    assert row["weights"]["predicted"] == pytest.approx(21.41, abs=0.01)


def test_copies_of_attention_are_inside_the_gpus_of_sglang():
    over = case_of(
        {"id": "a", "engine": "sglang", "model": "Qwen3-30B-A3B", "tp": 4, "dp": 4, "ep": 4}, CONTEXT
    ).asked.over
    assert (over.gpus, over.attention) == (4, 1)
    over = case_of(
        {"id": "a", "engine": "vllm", "model": "Qwen3-30B-A3B", "tp": 2, "dp": 4, "ep": 8}, CONTEXT
    ).asked.over
    assert (over.gpus, over.attention, over.expert) == (8, 2, 8)


@pytest.mark.parametrize(
    ("text", "model", "format_", "known"),
    [
        ("bf16", "Mixtral-8x7B", "bf16", True),
        ("fp8 (block 128)", "Qwen3-235B", "fp8_block128", True),
        ("fp8 (online)", "Qwen3-30B-A3B", "fp8_channel", False),
        ("mxfp4 (marlin)", "gpt-oss-120b", "mxfp4", True),
        ("mxfp4 gguf", "gpt-oss-120b", "mxfp4", False),
        ("gguf 4.936 bpw", "DeepSeek-V3.1", "bf16", False),
    ],
)
def test_format_of_weights_is_read_from_words(text, model, format_, known):
    precision, certain = weight_formats(text, CONTEXT.models[model])
    assert precision.format_of("routed_experts") == FORMATS[format_]
    assert certain is known


@pytest.mark.parametrize(
    ("text", "name"), [("auto (bf16)", "bf16"), ("q8_0", "q8_0"), ("fp8_e4m3", "fp8"), ("f16", "bf16"), ("", "bf16")]
)
def test_format_of_a_cache_is_read_from_words(text, name):
    assert kv_format(text) == (name, True)


def test_empty_file_predicts_nothing():
    assert predicted(pd.DataFrame(columns=[column.name for column in MEMORY.columns]), CONTEXT).empty
