"""Start-up logs: what is read of them, and logs that are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe.catalog.engine import load_engines
from prophet_moe.errors import UserError
from prophet_moe.observed.logs import LARGEST_LOG, check_version, read_log
from tests.conftest import ROOT
from tests.unit.observed.builders import SGLANG, VLLM_V0, VLLM_V1

ENGINES = load_engines(ROOT / "config/engines")


def test_log_of_vllm_v1_is_read():
    log = read_log(VLLM_V1, "a log")
    assert (log.engine, log.version) == ("vllm", "0.10.2 (V1)")
    assert log.cells == {
        "model": "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8",
        "weight_dtype": "fp8",
        "kv_dtype": "auto",
        "ep": 8,
        "weights_gib_per_gpu": 27.72,
        "non_torch_gib": 0.21,
        "activation_peak_gib": 1.4,
        "cudagraph_gib": 3.45,
        "kv_cache_gib_per_gpu": 10.64,
        "kv_tokens": 237344,
        "max_model_len": 32768,
        "max_concurrency": 7.24,
        "total_gpu_gib": 44.42,
        "gpu_memory_utilization": 0.9,
        "max_num_seqs": 256,
        "tp": 8,
        "pp": 1,
    }


def test_log_of_vllm_v0_is_read():
    log = read_log(VLLM_V0, "a log")
    assert (log.engine, log.version) == ("vllm", "0.7.2 (V0)")
    expected = {
        "weights_gib_per_gpu": 83.88,
        "non_torch_gib": 7.16,
        "activation_peak_gib": 6.37,
        "kv_cache_gib_per_gpu": 21.43,
        "kv_blocks": 18418,
        "total_gpu_gib": 139.81,
        "gpu_memory_utilization": 0.85,
        "max_concurrency": 2.3,
        "max_model_len": 128000,
        "tp": 8,
    }
    assert {name: log.cells[name] for name in expected} == expected


def test_log_of_sglang_is_read():
    log = read_log(SGLANG, "a log")
    assert (log.engine, log.version) == ("sglang", "")
    expected = {
        "model": "Qwen/Qwen3-235B-A22B-FP8",
        "weights_gib_per_gpu": 55.4,
        "kv_cache_gib_per_gpu": 16.46,
        "kv_tokens": 367404,
        "cudagraph_gib": 1.2,
        "gpu_memory_utilization": 0.93,
        "tp": 4,
        "max_model_len": 40960,
    }
    assert {name: log.cells[name] for name in expected} == expected


def test_colours_and_line_ends_of_a_terminal_do_not_matter():
    pasted = "".join(f"\x1b[0;36m{line}\x1b[0m\r\n" for line in VLLM_V1.splitlines())
    assert read_log(pasted, "a log") == read_log(VLLM_V1, "a log")


def test_smallest_pool_and_largest_weights_of_ranks_are_taken():
    text = VLLM_V1.replace("27.7200 GiB", "25.1000 GiB", 1)
    log = read_log(text, "a log")
    assert log.cells["weights_gib_per_gpu"] == 27.72
    assert "25.1 to 27.72" in log.notes[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no engine that is known"),
        ("hello\nworld\n", "no engine that is known"),
        ("vllm starts\n", "prints no weights and no KV cache (read: nothing)"),
        (VLLM_V1.split("\n")[2], "prints no weights and no KV cache (read: model, weight_dtype, kv_dtype"),
        ("\x00\x01 vllm \x02", "prints no weights"),
    ],
)
def test_text_that_is_no_start_up_log_is_refused(text, told):
    with pytest.raises(UserError) as refused:
        read_log(text, "a log")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_log_that_is_too_large_is_refused():
    with pytest.raises(UserError, match="larger than 64 MiB"):
        read_log("x" * (LARGEST_LOG + 1), "a log")


@pytest.mark.parametrize("version", ["9.9.0", "0.99.0", "0.19.0"])
def test_log_of_an_unknown_version_is_refused_with_what_was_read(version):
    log = read_log(VLLM_V1.replace("0.10.2", version), "a log")
    with pytest.raises(UserError) as refused:
        check_version(log, "", ENGINES, "a log")
    assert "unknown version" in str(refused.value)
    assert "weights_gib_per_gpu: 27.72" in str(refused.value)
    assert check_version(log, version, ENGINES, "a log") == version


def test_log_without_a_version_needs_one():
    log = read_log(SGLANG, "a log")
    with pytest.raises(UserError, match=r"does not say its version of sglang; read was: .*kv_tokens: 367404"):
        check_version(log, "", ENGINES, "a log")
    assert check_version(log, "0.5.2", ENGINES, "a log") == "0.5.2"


@given(st.text(max_size=300), st.integers(0, len(VLLM_V1)))
def test_any_text_inside_a_log_is_read_or_refused(inserted, at):
    try:
        log = read_log(VLLM_V1[:at] + inserted + VLLM_V1[at:], "a log")
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert log.cells
