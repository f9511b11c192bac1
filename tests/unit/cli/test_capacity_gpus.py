"""The command `capacity` with several GPUs: text, JSON, and mistakes in one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import fuzz
from tests.unit.cli.test_capacity import ask  # noqa: F401

QWEN = ("capacity", "--model", "Qwen3-235B", "--gpu", "H100-80GB")


def test_text_names_gpus_split_and_stages(ask):  # noqa: F811
    shown, error = ask(*QWEN, "--tp", "2", "--pp", "2", "--ep", "--dp", "2", "--batch", "16", "--context", "4096")
    words = " ".join(shown.split())
    assert error in ("", "0")
    assert "8 x H100-80GB, pp 2, dp 2, tp 2, ep 4" in words
    assert "each caches 2 of 4 KV heads" in words
    assert "32 of 128 experts of a layer, whole" in words
    assert "2 stages hold 47, 47 layers" in words
    assert "of 32 experts per MoE layer on each GPU" in words
    assert "A context of 4,096 tokens" in words


def test_json_has_a_gpu_of_every_stage(ask):  # noqa: F811
    shown, _ = ask(*QWEN, "--tp", "8", "--pp", "2", "--engine", "vllm-0.10", "--batch", "1", "16", "--json")
    entries = json.loads(shown)
    assert [entry["batch"] for entry in entries] == [1, 16]
    for entry in entries:
        assert entry["parallelism"] == {"tp": 8, "pp": 2, "dp": 1, "ep": 1} and entry["gpus"] == 16
        assert [stage["layers"] for stage in entry["stages"]] == [47, 47]
        assert entry["baseline_max_context"] == min(stage["baseline_max_context"] for stage in entry["stages"])
        assert entry["stages"][1]["engine_budget"]["fits"] is True


def test_stages_that_hold_the_same_share_a_row(ask):  # noqa: F811
    """The first of 8 stages has the input embedding, the last one the head, and the others hold 12 layers each."""
    options = (*QWEN, "--tp", "8", "--pp", "8")
    words = " ".join(ask(*options)[0].split())
    assert "│ 2 to 7 │ 48 │ 12 │" in words and "│ 1 │ 8 │ 11 │" in words
    (entry,) = json.loads(ask(*options, "--json")[0])
    assert [stage["stage"] for stage in entry["stages"]] == list(range(1, 9))
    assert [stage["layers"] for stage in entry["stages"]] == [11, *[12] * 6, 11]


def test_one_gpu_of_each_answers_as_without_the_options(ask):  # noqa: F811
    plain, _ = ask(*QWEN, "--json")
    assert ask(*QWEN, "--tp", "1", "--pp", "1", "--dp", "1", "--json")[0] == plain


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--tp", "0"), "--tp: got 0, expected a whole number of 1 to 4,096"),
        (("--pp", "x"), "--pp: got x, expected a whole number"),
        (("--tp", "3"), "3 GPUs do not divide the 64 heads"),
        (("--pp", "99"), "pp 99 is more than the 94 layers"),
        (("--ep",), "--ep: a stage has one GPU"),
        (("--tp", "64", "--dp", "4", "--ep"), "--ep: 256 GPUs for the 128 experts"),
        (("--tp", "2", "--scenario", "reported"), "the report's constants are those of one GPU"),
    ],
)
def test_mistake_ends_in_one_line(ask, options, told):  # noqa: F811
    shown, error = ask(*QWEN, *options)
    assert shown == "" and error.startswith("error: ") and "\n" not in error
    assert told in error


SIZE = st.sampled_from(["1", "2", "3", "4", "8", "61", "4096", "0", "two"])


@fuzz(25)
@given(
    st.sampled_from(["Qwen3-235B", "DeepSeek-V3-671B", "Switch-Base-128", "Jamba-1.5-Large"]),
    st.dictionaries(st.sampled_from(["--tp", "--pp", "--dp"]), SIZE),
    st.booleans(),
    st.sampled_from(["ideal", "vllm-0.7", "vllm", "sglang", "llama.cpp"]),
)
def test_any_split_ends_in_an_answer_or_one_line(ask, model, sizes, expert, engine):  # noqa: F811
    options = [part for option, value in sizes.items() for part in (option, value)] + ["--ep"] * expert
    shown, error = ask("capacity", "--model", model, "--memory", "140", "--engine", engine, *options, "--json")
    assert error in ("", "0") or (error.startswith("error: ") and "\n" not in error and shown == "")
    if error in ("", "0"):
        assert all(entry["verdict"] for entry in json.loads(shown))
