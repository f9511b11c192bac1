"""Models, GPUs and engines by the names that sources give them."""

import pytest

from prophet_moe.observed.context import load_context
from tests.conftest import ROOT

CONTEXT = load_context(ROOT)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("H100 80GB", "H100-80GB"),
        ("A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB"),
        ("H200", "H200-141GB"),
        ("NVIDIA GeForce RTX 4090", "RTX4090-24GB"),
        ("V100-16GB", None),
        ("48 GB card (44.42 GiB visible)", None),
        ("A100", None),
        ("", None),
    ],
)
def test_gpu_is_found_by_words_and_size(text, name):
    found = CONTEXT.gpu(text)
    assert (found and found[0]) == name


@pytest.mark.parametrize(
    ("engine", "version", "profile"),
    [
        ("vllm", "~0.8 (V0)", "vllm-0.8-v0"),
        ("vllm", "0.7.2 (V0)", "vllm-0.7"),
        ("vllm", "~0.8.x (V1)", "vllm-0.10"),
        ("exllama", "1.0", None),
    ],
)
def test_generation_of_vllm_decides_where_it_is_named(engine, version, profile):
    found = CONTEXT.engine(engine, version)
    assert (found and found.name) == profile


def test_repository_comes_before_the_name_of_a_source():
    spec, entry = CONTEXT.model("Qwen/Qwen3-30B-A3B-Instruct-2507", "a fast model")
    assert (spec.name, entry.rotary_positions) == ("Qwen3-30B-A3B", 262144)
    assert CONTEXT.model("", "a fast model") is None


def test_model_of_a_user_is_found_by_its_own_name():
    mine = CONTEXT.models["OLMoE-1B-7B"].model_copy(update={"name": "My-MoE"})
    spec, entry = CONTEXT.with_models([mine]).model("My-MoE")
    assert (spec.name, entry.rotary_positions) == ("My-MoE", None)
