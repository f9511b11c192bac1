"""Names under which others serve the models of the catalogue."""

import pytest
import yaml

from prophet_moe.catalog import model_names
from prophet_moe.catalog.names import bare, load_names, named
from prophet_moe.errors import UserError
from tests.conftest import ROOT

NAMES = load_names(ROOT / "config/model_names.yaml")


def test_names_lead_to_models_of_the_catalogue():
    known = {*model_names(ROOT / "config/models"), *model_names(ROOT / "config/models/current")}
    assert {entry.model for entry in NAMES} <= known


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "Qwen3-235B"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("deepseek-ai/DeepSeek-R1-0528", "DeepSeek-V3.1"),
        ("DeepSeek-R1 or V3 (671B)", "DeepSeek-V3.1"),
        ("deepseek-ai/DeepSeek-V3.2-Exp", "DeepSeek-V3.2"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x7B"),
        ("DeepSeek-V2.5", "DeepSeek-V2-236B"),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", "DeepSeek-V2-Lite"),
    ],
)
def test_served_name_leads_to_its_model(name, model):
    assert named(name, NAMES).model == model


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "GLM-5.2", "meta-llama/Llama-3-8B", ""])
def test_name_of_another_model_leads_nowhere(name):
    assert named(name, NAMES) is None


def test_longer_context_has_a_longer_rotary_table():
    assert named("Qwen3-30B-A3B-Instruct-2507", NAMES).rotary_positions == 262144
    assert named("Qwen3-30B-A3B", NAMES).rotary_positions is None


def test_format_and_owner_are_no_part_of_a_name():
    assert bare("Qwen/Qwen3-30B-A3B-FP8") == "Qwen3-30B-A3B"
    assert bare("cyankiwi/Kimi-Linear-48B-A3B-Instruct-AWQ-4bit (vision)") == "Kimi-Linear-48B-A3B-Instruct"


def test_pattern_that_is_none_is_refused(tmp_path):
    path = tmp_path / "names.yaml"
    path.write_text(yaml.safe_dump({"names": [{"match": "(", "model": "OLMoE-1B-7B"}]}))
    with pytest.raises(UserError, match="expected a regular expression"):
        load_names(path)
