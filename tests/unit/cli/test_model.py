"""The commands `models` and `model`, and `capacity` of models that are in no catalogue: what they print and refuse."""

import json
import os
import shutil

import pytest
import yaml

from prophet_moe.catalog.model import load_model
from tests.conftest import ROOT

QWEN3 = {
    "model_type": "qwen3_moe",
    "_name_or_path": "Qwen/Qwen3-30B-A3B",
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
}
"""Fields of Qwen/Qwen3-30B-A3B's config.json, whose counts tests/golden/architectures holds."""
LLAMA = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
"""Fields of meta-llama/Meta-Llama-3-8B's config.json, a dense model of 8,030,261,248 parameters."""
SIZES = {
    "name": "mine",
    "total_parameters": 30_532_122_624,
    "active_parameters": 3_353_032_704,
    "kv_bytes_per_token_growing": 98_304,
    "kv_bytes_bounded": 0,
    "state_bytes": 0,
    "checkpoint_bytes": 61_064_245_248,
}


@pytest.fixture
def ask(command):
    """Run prophet-moe; returns what it printed, and what it told on standard error."""
    return lambda *arguments, **given: command(*arguments, **given)[1:]


@pytest.fixture
def checkpoint(tmp_path):
    """A folder of a checkpoint with a config.json."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN3))
    return folder


def test_imported_file_reads_back_with_exact_counts(ask, checkpoint, tmp_path):
    out = tmp_path / "mine.yaml"
    shown, told = ask("model", "import", checkpoint / "config.json", "--out", out)
    assert shown == ""
    assert "30,532,122,624 parameters, 3,353,032,704 active" in told
    spec = load_model(out)
    assert (spec.name, spec.hugging_face) == ("mine", "Qwen/Qwen3-30B-A3B")
    (found,) = json.loads(ask("models", out, "--json")[0])
    assert {key: found[key] for key in SIZES} == SIZES


def test_import_prints_the_file_unless_out_is_given(ask, checkpoint, tmp_path):
    shown, _ = ask("model", "import", checkpoint)
    assert yaml.safe_load(shown)["architecture"]["pattern"] == ["48 x M"]
    ask("model", "import", checkpoint, "--out", tmp_path / "mine.yaml")
    written = (tmp_path / "mine.yaml").read_text().splitlines()
    assert written[1:] == shown.splitlines()[1:], "but for the way to the schema"


def test_models_of_a_config_equals_that_of_its_import(ask, checkpoint, tmp_path):
    ask("model", "import", checkpoint, "--out", tmp_path / "mine.yaml")
    of_config, of_file, of_folder = (
        json.loads(ask("models", path, "--json")[0])
        for path in (checkpoint / "config.json", tmp_path / "mine.yaml", checkpoint)
    )
    assert of_config == of_file == of_folder


def test_import_compares_the_index_of_weights(ask, checkpoint):
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 61_064_245_248}, "weight_map": {}}))
    assert "states 61,064,245,248 B: +0.000% are counted" in ask("model", "import", checkpoint)[1]
    index.write_text(json.dumps({"metadata": {"total_size": 122_128_490_496}}))
    assert "-50.000% are counted" in ask("model", "import", checkpoint)[1]
    index.write_text("[]")
    assert "does not state total_size" in ask("model", "import", checkpoint)[1]


def test_import_reads_the_formats_beside_the_config(ask, checkpoint):
    """ModelOpt wrote them into a file of their own at first; fields of the config.json go first."""
    formats = checkpoint / "hf_quant_config.json"
    formats.write_text(json.dumps({"quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}}))
    shown, _ = ask("model", "import", checkpoint)
    assert yaml.safe_load(shown)["precision"] == {"default": "nvfp4", "embeddings": "bf16"}
    assert ask("model", "import", checkpoint / "config.json")[0] == shown
    own = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (checkpoint / "config.json").write_text(json.dumps(QWEN3 | {"quantization_config": own}))
    assert yaml.safe_load(ask("model", "import", checkpoint)[0])["precision"]["default"] == "fp8_block128"
    (checkpoint / "config.json").write_text(json.dumps(QWEN3))
    formats.write_text("[]")
    assert ask("model", "import", checkpoint)[1].startswith(f"error: {formats}: holds list, expected a mapping")


def test_import_never_overwrites_a_file(ask, checkpoint, tmp_path):
    out = tmp_path / "mine.yaml"
    out.write_text("mine\n")
    _, error = ask("model", "import", checkpoint, "--out", out)
    assert error == f"error: {out}: exists already. Name another --out, or remove that file."
    assert out.read_text() == "mine\n"


BAD = {
    "no model_type": ({"hidden_size": 8}, "model_type: is missing"),
    "unknown model_type": ({"model_type": "mystery"}, "model_type: got 'mystery', expected one of"),
    "a family that is refused": ({"model_type": "jetmoe"}, "model_type: 'jetmoe' cannot be expressed"),
    "an unknown field": (QWEN3 | {"flux_capacitor": 3}, "flux_capacitor: got 3, which is not understood"),
    "contradictory fields": (QWEN3 | {"num_local_experts": 64}, "num_experts: got 128, but num_local_experts is 64"),
    "an unknown quantisation": (QWEN3 | {"quantization_config": {"quant_method": "zip"}}, "quantization_config"),
    "no mapping": ([1, 2], "holds list, expected a mapping of fields"),
    "a width of nothing": (QWEN3 | {"hidden_size": 0}, "hidden_size: got 0, expected a whole number from 1"),
    "a width in words": (QWEN3 | {"hidden_size": "wide"}, "hidden_size: got 'wide', expected a whole number"),
    "too many layers": (QWEN3 | {"num_hidden_layers": 10**8}, "num_hidden_layers: got 100000000, expected"),
    "more choices than experts": (QWEN3 | {"num_experts_per_tok": 200}, "top_k"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_config_is_one_line(ask, checkpoint, tmp_path, case):
    document, problem = BAD[case]
    (checkpoint / "config.json").write_text(json.dumps(document))
    shown, error = ask("model", "import", checkpoint, "--out", tmp_path / "out.yaml")
    assert shown == "" and error.startswith("error: ") and "\n" not in error
    assert problem in error
    assert not (tmp_path / "out.yaml").exists()


def test_a_gigabyte_of_json_is_refused_unread(ask, checkpoint):
    with (checkpoint / "config.json").open("ab") as stream:
        os.truncate(stream.fileno(), 10**9)
    _, error = ask("model", "import", checkpoint)
    assert "has 1,000 MB, expected a config.json of at most 4 MB" in error


def test_malformed_json_names_its_line(ask, checkpoint):
    (checkpoint / "config.json").write_text('{\n"model_type": ,\n}')
    assert "line 2: malformed JSON" in ask("model", "import", checkpoint)[1]


def test_dense_model_is_told_and_has_its_memory(ask, checkpoint):
    (checkpoint / "config.json").write_text(json.dumps(LLAMA))
    _, told = ask("model", "import", checkpoint)
    assert "dense: it has no experts to offload" in told and "8,030,261,248 parameters" in told
    shown, _ = ask("capacity", "--model", checkpoint, "--gpu", "A100-40GB", "--json")
    (found,) = json.loads(shown)
    assert "The model is dense" in found["verdict"][0] and "fits" in found["verdict"][1]
    assert found["numbers"]["baseline_max_context"] == found["numbers"]["prophet_max_context"] > 8192
    assert found["rests_on"]["routing"].startswith("none: the model is dense")


def test_capacity_answers_for_a_config_and_its_file_alike(ask, checkpoint, tmp_path):
    ask("model", "import", checkpoint, "--out", tmp_path / "mine.yaml")
    asked = ("--gpu", "A100-80GB", "--batch", "4", "--json")
    answers = [ask("capacity", "--model", path, *asked)[0] for path in (checkpoint, tmp_path / "mine.yaml")]
    assert answers[0] == answers[1]


def test_budget_adds_up_to_the_device(ask):
    shown, _ = ask("capacity", "--model", "DeepSeek-V2-236B", "--gpu", "H200-141GB", "--batch", "8", "--json")
    device, *taken, free = json.loads(shown)[0]["budget"]
    for whose in ("baseline_bytes", "prophet_bytes"):
        assert sum(line[whose] for line in taken) + free[whose] == pytest.approx(device[whose], abs=1)
    assert {"routed experts", "attention", "shared experts", "activations"} <= {line["what"] for line in taken}


@pytest.mark.parametrize(("name", "share"), [("mxfp4", 4.25 / 16), ("fp8_block128", 0.5), ("q8_0", 8.5 / 16)])
def test_format_makes_experts_smaller_by_its_bits(ask, name, share):
    asked = ("capacity", "--model", "Mixtral-8x7B", "--gpu", "A100-80GB", "--json")
    whole, smaller = (json.loads(ask(*asked, *option)[0])[0] for option in ((), ("--format", name)))
    ratio = smaller["numbers"]["baseline_expert_gb"] / whole["numbers"]["baseline_expert_gb"]
    assert ratio == pytest.approx(share, rel=1e-3)
    assert f"weights {name}" in smaller["rests_on"]["memory"]


def test_kv_format_stretches_the_context(ask):
    asked = ("capacity", "--model", "Qwen3-235B", "--gpu", "A100-80GB", "--json")
    sixteen, eight = (
        json.loads(ask(*asked, "--kv-format", name)[0])[0]["numbers"]["prophet_max_context"] for name in ("bf16", "fp8")
    )
    assert eight == pytest.approx(2 * sixteen, abs=2)


def test_layout_of_sparse_mla_is_refused_for_others(ask):
    asked = ("capacity", "--model", "Mixtral-8x7B", "--gpu", "A100-80GB", "--kv-format", "fp8_sparse_mla")
    assert "is a layout of latent attention, the model has a mixer of kind softmax" in ask(*asked)[1]


def test_unknown_model_suggests_the_nearest(ask):
    assert "did you mean 'Mixtral-8x7B'" in ask("capacity", "--model", "Mixtral-8x7", "--gpu", "A100-80GB")[1]


def test_old_file_names_the_command_that_converts_it(ask, tmp_path):
    old = tmp_path / "old.yaml"
    moe, attention = (
        {"experts": 8, "top_k": 2, "ffn": 14336},
        {"kind": "GQA", "heads": 32, "kv_heads": 8, "head_dim": 128},
    )
    architecture = {"family": "decoder", "layers": 32, "hidden": 4096, "vocab": 32000, "native_context": 32768}
    document = {"name": "old", "published_name": "old", "sources": ["its config.json"], "published_total_b": 46.7}
    old.write_text(yaml.safe_dump(document | {"architecture": architecture | {"moe": moe, "attention": attention}}))
    _, error = ask("models", old)
    assert f"Run: prophet-moe model convert {old}" in error
    new = tmp_path / "new" / "old.yaml"
    new.parent.mkdir()
    ask("model", "convert", old, "--out", new)
    (found,) = json.loads(ask("models", new, "--json")[0])
    assert found["total_parameters"] == 46_702_792_704
    assert "is not in the form of earlier versions" in ask("model", "convert", new)[1]


def test_one_broken_file_does_not_hide_the_others(ask, tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "config/models/DBRX-132B.yaml").write_text("name: [\n")
    shown, error = ask("models", folder=tmp_path)
    assert "Mixtral-8x7B" in shown and "DBRX" not in shown
    assert "config/models/DBRX-132B.yaml" in error


def test_left_out_parts_are_told_wherever_the_model_is(ask, checkpoint):
    (checkpoint / "config.json").write_text(json.dumps(QWEN3 | {"num_nextn_predict_layers": 2}))
    part = "2 draft (multi-token prediction) layers (num_nextn_predict_layers)"
    assert f"Left out: {part}." in ask("model", "import", checkpoint)[1]
    assert f"left out: {part}" in ask("models", checkpoint)[0]
    (found,) = json.loads(ask("capacity", "--model", checkpoint, "--gpu", "A100-80GB", "--json")[0])
    assert found["rests_on"]["left out"] == part
