"""Predicted against measured memory: exact where both must be, and an error that says what it is elsewhere."""

import io
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.catalog import Architecture, load_models
from prophet_moe.catalog.architecture import Encoder
from prophet_moe.errors import UserError
from prophet_moe.files import write_text
from prophet_moe.params import attention_layers, moe_layers, parameter_counts
from prophet_moe.routing.store import seal
from prophet_moe.settings.scenario import CALIBRATED, REPORTED, Activation
from studies.memory_validation.compute import COLUMNS, NUMBERS, build, compare, left_out, read_memory, with_layers
from tests.conftest import ROOT
from tests.golden.test_architectures import GOLDEN

PLANS = ROOT / "config/measurements"
TINY = {
    name: plan["config"] for name, plan in yaml.safe_load((PLANS / "memory_quick.yaml").read_text())["models"].items()
}
CATALOGUE = {name: spec.architecture for name, spec in load_models(ROOT / "config/models").items()}

RECORDED = """\
model,layers,dtype,attention,experts,measurement,phase,method,batch,tokens,value,value_low,repeats
OLMoE,3,bfloat16,sdpa,grouped_mm,parameter_bytes,loading,tensors,,,117056,,
OLMoE,3,bfloat16,sdpa,grouped_mm,expert_parameter_bytes,loading,tensors,,,73728,,
OLMoE,3,bfloat16,sdpa,grouped_mm,parameter_bytes,first_passes,tensors,,,117056,,
OLMoE,3,bfloat16,sdpa,grouped_mm,kv_bytes_per_token,cache,tensors from 32 tokens,1,48,384.0,,
OLMoE,3,bfloat16,sdpa,grouped_mm,state_bytes_per_sequence,cache,tensors from 32 tokens,1,48,0.0,,
OLMoE,3,bfloat16,sdpa,grouped_mm,activation_peak_bytes,decode,live_tensors,4,16,5672,,
Switch,4,bfloat16,eager,eager,parameter_bytes,loading,tensors,,,257920,,
Switch,4,bfloat16,eager,eager,expert_parameter_bytes,loading,tensors,,,131072,,
Switch,4,bfloat16,eager,eager,parameter_bytes,first_passes,tensors,,,259968,,
Switch,4,bfloat16,eager,eager,kv_bytes_per_token,cache,tensors from 32 tokens,1,48,512.0,,
Switch,4,bfloat16,eager,eager,state_bytes_per_sequence,cache,tensors from 32 tokens,1,48,0.0,,
Switch,4,bfloat16,eager,eager,cross_kv_bytes_per_token,cache,tensors from 32 tokens,1,48,512.0,,
Switch,4,bfloat16,eager,eager,cross_state_bytes_per_sequence,cache,tensors from 32 tokens,1,48,0.0,,
Switch,4,bfloat16,eager,eager,activation_peak_bytes,decode,live_tensors,4,16,6240,,
DeepSeek-V2,3,bfloat16,sdpa,grouped_mm,parameter_bytes,loading,tensors,,,110064,,
DeepSeek-V2,3,bfloat16,sdpa,grouped_mm,expert_parameter_bytes,loading,tensors,,,49152,,
DeepSeek-V2,3,bfloat16,sdpa,grouped_mm,parameter_bytes,first_passes,tensors,,,110064,,
DeepSeek-V2,3,bfloat16,sdpa,grouped_mm,kv_bytes_per_token,cache,tensors from 32 tokens,1,48,96.0,,
DeepSeek-V2,3,bfloat16,sdpa,grouped_mm,state_bytes_per_sequence,cache,tensors from 32 tokens,1,48,0.0,,
DeepSeek-V2,3,bfloat16,sdpa,grouped_mm,activation_peak_bytes,decode,live_tensors,4,16,66280,,
gpt-oss,4,bfloat16,eager,grouped_mm,parameter_bytes,loading,tensors,,,247200,,
gpt-oss,4,bfloat16,eager,grouped_mm,expert_parameter_bytes,loading,tensors,,,202752,,
gpt-oss,4,bfloat16,eager,grouped_mm,parameter_bytes,first_passes,tensors,,,247200,,
gpt-oss,4,bfloat16,eager,grouped_mm,kv_bytes_per_token,cache,tensors from 32 tokens,1,48,128.0,,
gpt-oss,4,bfloat16,eager,grouped_mm,state_bytes_per_sequence,cache,tensors from 32 tokens,1,48,1920.0,,
gpt-oss,4,bfloat16,eager,grouped_mm,activation_peak_bytes,decode,live_tensors,4,16,12768,,
Mixtral,3,bfloat16,sdpa,grouped_mm,parameter_bytes,loading,tensors,,,109760,,
Mixtral,3,bfloat16,sdpa,grouped_mm,expert_parameter_bytes,loading,tensors,,,73728,,
Mixtral,3,bfloat16,sdpa,grouped_mm,parameter_bytes,first_passes,tensors,,,109760,,
Mixtral,3,bfloat16,sdpa,grouped_mm,kv_bytes_per_token,cache,tensors from 32 tokens,1,48,192.0,,
Mixtral,3,bfloat16,sdpa,grouped_mm,state_bytes_per_sequence,cache,tensors from 32 tokens,1,48,0.0,,
Mixtral,3,bfloat16,sdpa,grouped_mm,activation_peak_bytes,decode,live_tensors,4,16,4552,,
Jamba,5,bfloat16,sdpa,grouped_mm,parameter_bytes,loading,tensors,,,160608,,
Jamba,5,bfloat16,sdpa,grouped_mm,expert_parameter_bytes,loading,tensors,,,49152,,
Jamba,5,bfloat16,sdpa,grouped_mm,parameter_bytes,first_passes,tensors,,,160608,,
Jamba,5,bfloat16,sdpa,grouped_mm,kv_bytes_per_token,cache,tensors from 32 tokens,1,48,64.0,,
Jamba,5,bfloat16,sdpa,grouped_mm,state_bytes_per_sequence,cache,tensors from 32 tokens,1,48,10240.0,,
Jamba,5,bfloat16,sdpa,grouped_mm,activation_peak_bytes,decode,live_tensors,4,16,46472,,
DeepSeek-V3,3,bfloat16,sdpa,grouped_mm,parameter_bytes,loading,tensors,,,96288,,
DeepSeek-V3,3,bfloat16,sdpa,grouped_mm,expert_parameter_bytes,loading,tensors,,,49152,,
DeepSeek-V3,3,bfloat16,sdpa,grouped_mm,parameter_bytes,first_passes,tensors,,,96288,,
DeepSeek-V3,3,bfloat16,sdpa,grouped_mm,kv_bytes_per_token,cache,tensors from 32 tokens,1,48,96.0,,
DeepSeek-V3,3,bfloat16,sdpa,grouped_mm,state_bytes_per_sequence,cache,tensors from 32 tokens,1,48,0.0,,
DeepSeek-V3,3,bfloat16,sdpa,grouped_mm,activation_peak_bytes,decode,live_tensors,4,16,66280,,
"""
"""Rows that `python -m prophet_moe.collect memory --plan config/measurements/memory_quick.yaml` recorded on a CPU, with
Transformers 5.23.0 and torch 2.13.0."""


def shrunk(peer: str, parts: dict[str, dict], **fields) -> Architecture:
    """The catalogue's `peer` with the sizes of a tiny variant: of some mixers and FFNs by name, and of the whole."""
    dumped = CATALOGUE[peer].model_dump()
    for kind in ("mixers", "ffns"):
        dumped[kind] = {name: part | parts.get(name, {}) for name, part in dumped[kind].items()}
    return Architecture.model_validate(dumped | fields)


def llama_like(peer: str, config: dict, **parts: dict) -> Architecture:
    heads = config["num_attention_heads"]
    experts = {
        "experts": config.get("num_local_experts") or config["num_experts"],
        "top_k": config["num_experts_per_tok"],
        "ffn": config["intermediate_size"],
    }
    attention = {
        "heads": heads,
        "kv_heads": config["num_key_value_heads"],
        "head_dim": config.get("head_dim", config["hidden_size"] // heads),
    }
    letter = CATALOGUE[peer].pattern[0][-1]
    fields = {"hidden": config["hidden_size"], "vocab": config["vocab_size"]}
    pattern = {"pattern": [f"{config['num_hidden_layers']} x {letter}"]}
    return shrunk(peer, {"moe": experts, "attention": attention}, **fields | pattern | parts)


def mla(peer: str, config: dict) -> Architecture:
    experts = {
        "experts": config["n_routed_experts"],
        "top_k": config["num_experts_per_tok"],
        "ffn": config["moe_intermediate_size"],
        "shared_experts": config["n_shared_experts"],
        "shared_ffn": config["n_shared_experts"] * config["moe_intermediate_size"],
    }
    attention = {
        "heads": config["num_attention_heads"],
        "q_lora_rank": config["q_lora_rank"],
        "kv_lora_rank": config["kv_lora_rank"],
        "nope_head_dim": config["qk_nope_head_dim"],
        "rope_head_dim": config["qk_rope_head_dim"],
        "v_head_dim": config["v_head_dim"],
    }
    dense = config["first_k_dense_replace"]
    return shrunk(
        peer,
        {"moe": experts, "attention": attention, "dense": {"ffn": config["intermediate_size"]}},
        pattern=[f"{dense} x D", f"{config['num_hidden_layers'] - dense} x M"],
        hidden=config["hidden_size"],
        vocab=config["vocab_size"],
    )


def jamba(config: dict) -> Architecture:
    def holds(layer: int, what: str) -> bool:
        return layer % config[f"{what}_layer_period"] == config[f"{what}_layer_offset"]

    letters = {(False, False): "s", (False, True): "S", (True, False): "D"}
    pattern = "".join(letters[holds(n, "attn"), holds(n, "expert")] for n in range(config["num_hidden_layers"]))
    arch = llama_like("Jamba-1.5-Large", config, pattern=[pattern]).model_dump()
    mamba = {
        "state": config["mamba_d_state"],
        "conv": config["mamba_d_conv"],
        "inner": config["mamba_expand"] * config["hidden_size"],
        "dt_rank": config["mamba_dt_rank"],
    }
    arch["mixers"]["mamba"] |= mamba
    arch["ffns"]["dense"] |= {"ffn": config["intermediate_size"]}
    return Architecture.model_validate(arch)


def switch(config: dict) -> Architecture:
    heads = {"heads": config["num_heads"], "kv_heads": config["num_heads"], "head_dim": config["d_kv"]}
    parts = {"moe": {"experts": config["num_experts"], "ffn": config["d_ff"]}, "dense": {"ffn": config["d_ff"]}}
    stacks = {
        "pattern": [f"{config['num_decoder_layers'] // 2} x DM"],
        "encoder": {"pattern": [f"{config['num_layers'] // 2} x DM"]},
    }
    fields = {"hidden": config["d_model"], "vocab": config["vocab_size"]}
    arch = shrunk("Switch-Base-128", parts | {"attention": heads}, **stacks | fields)
    assert moe_layers(arch) == config["num_sparse_encoder_layers"] + config["num_sparse_decoder_layers"]
    return arch


def gpt_oss(config: dict) -> Architecture:
    """Half of the layers keep a window; the form of gpt-oss-120b with other sizes."""
    arch = json.loads(json.dumps(GOLDEN["gpt-oss-120b"]["architecture"]))
    attention = {
        "heads": config["num_attention_heads"],
        "kv_heads": config["num_key_value_heads"],
        "head_dim": config["head_dim"],
    }
    arch["mixers"]["full"] |= attention
    arch["mixers"]["local"] |= attention | {"window": config["sliding_window"]}
    arch["ffns"]["moe"] |= {
        "experts": config["num_local_experts"],
        "top_k": config["num_experts_per_tok"],
        "ffn": config["intermediate_size"],
    }
    fields = {"hidden": config["hidden_size"], "vocab": config["vocab_size"]}
    return Architecture.model_validate(arch | fields | {"pattern": [f"{config['num_hidden_layers'] // 2} x SF"]})


TINY_ARCHITECTURES = {
    "Mixtral": llama_like("Mixtral-8x7B", TINY["Mixtral"]),
    "OLMoE": llama_like("OLMoE-1B-7B", TINY["OLMoE"]),
    "DeepSeek-V2": mla("DeepSeek-V2-236B", TINY["DeepSeek-V2"]),
    "DeepSeek-V3": mla("DeepSeek-V3-671B", TINY["DeepSeek-V3"]),
    "Jamba": jamba(TINY["Jamba"]),
    "Switch": switch(TINY["Switch"]),
}
"""Tiny variants whose numbers are those of memory_quick.yaml."""


def recorded_in(folder: Path, text: str = RECORDED) -> Path:
    """A folder as the collector leaves it."""
    write_text(folder / "memory.csv", text)
    seal(folder, {"kind": "memory"}, "memory.csv")
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> pd.DataFrame:
    return read_memory(recorded_in(tmp_path_factory.mktemp("memory")))


@pytest.fixture(scope="module")
def compared(measured) -> pd.DataFrame:
    return compare(measured, TINY_ARCHITECTURES, CALIBRATED)


@pytest.mark.parametrize("name", TINY_ARCHITECTURES)
def test_memory_of_tiny_models_is_predicted_exactly(compared, name):
    rows = compared[(compared["model"] == name) & (compared["phase"].isin(["loading", "cache"]))]
    names = {"parameter_bytes", "expert_parameter_bytes", "kv_bytes_per_token", "state_bytes_per_sequence"}
    assert set(rows["measurement"]) == names | ({"cross_kv_bytes_per_token"} if name == "Switch" else set())
    assert (rows["predicted"] == rows["measured"]).all(), rows.to_string()
    assert (rows["error_pct"] == 0).all()


def test_what_a_class_casts_to_fp32_shows_as_an_error(compared):
    """Switch keeps its routers in FP32 from the first pass on, two bytes more for each of their weights."""
    routers = parameter_counts(TINY_ARCHITECTURES["Switch"]).router
    (row,) = compared[(compared["model"] == "Switch") & (compared["phase"] == "first_passes")].itertuples()
    assert row.measured - row.predicted == 2 * routers
    assert row.error_pct == pytest.approx(-100 * 2 * routers / row.measured)


def test_window_holds_one_token_more_than_transformers_keeps(measured):
    """The cache grows by its full layers alone. Transformers keeps a window less the token that comes next."""
    arch = gpt_oss(TINY["gpt-oss"])
    assert left_out(measured, {"gpt-oss": arch}).keys() == TINY_ARCHITECTURES.keys()
    rows = compare(measured, {"gpt-oss": arch}, CALIBRATED)
    rows = rows[rows["phase"] != "decode"].set_index("measurement")
    exact = rows.drop(index="state_bytes_per_sequence")
    assert set(exact.index) == {"parameter_bytes", "expert_parameter_bytes", "kv_bytes_per_token"}
    assert (exact["predicted"] == exact["measured"]).all(), rows.to_string()
    state, token = rows.loc["state_bytes_per_sequence"], 2 * 2 * 2 * 2 * 8
    assert state["measured"] == 15 * token and state["predicted"] == 16 * token


def test_cache_below_its_window_grows_in_every_layer(measured):
    """From 8 to 12 tokens no window of 16 is full: all four layers grow, and nothing is bounded."""
    arch, name = gpt_oss(TINY["gpt-oss"]), "gpt-oss"
    rows = measured[(measured["model"] == name) & (measured["phase"] == "cache")]
    short = rows.assign(method="tensors from 8 tokens", tokens=12.0)
    assert compare(short, {name: arch}, CALIBRATED)["predicted"].tolist() == [4 * 2 * 2 * 2 * 8, 0]


@pytest.mark.parametrize("method", ["tensors", "tensors from 48 tokens", "tensors from 0 tokens", "from 1 token"])
def test_cache_of_unknown_lengths_is_one_line(measured, method):
    rows = measured[measured["measurement"] == "kv_bytes_per_token"].assign(method=method)
    with pytest.raises(UserError, match=f"method: got '{method}' with tokens 48, expected from fewer tokens"):
        compare(rows, TINY_ARCHITECTURES, CALIBRATED)


def test_deeper_architectures_are_cut_to_the_measured_layers(measured, compared):
    deeper = {
        name: arch.model_copy(update={"pattern": 7 * arch.pattern, "encoder": arch.encoder and sevenfold(arch.encoder)})
        for name, arch in TINY_ARCHITECTURES.items()
    }
    pd.testing.assert_frame_equal(compare(measured, deeper, CALIBRATED), compared)


def sevenfold(encoder: Encoder) -> Encoder:
    return Encoder(pattern=7 * encoder.pattern)


def test_activation_peaks_are_predicted_for_the_tokens_in_flight(measured):
    """Decoding: one token of each sequence; a prompt: all its tokens. Logits of every sequence in either."""
    arch, name = TINY_ARCHITECTURES["Mixtral"], "Mixtral"
    (decode,) = measured[(measured["model"] == name) & (measured["phase"] == "decode")].to_dict("records")
    frame = pd.DataFrame([decode, decode | {"phase": "prefill", "batch": 1.0, "tokens": 48.0}])
    found = compare(frame, {name: arch}, CALIBRATED)["predicted"].tolist()
    logits = arch.vocab * (2 + 4)
    moe = arch.moe.top_k * (2 * arch.hidden + 3 * arch.moe.ffn) + 2 * arch.moe.experts
    per_token = 2 * (2 * arch.hidden + moe)
    assert decode["batch"] != decode["tokens"]
    assert found == [decode["batch"] * (per_token + logits), 48 * per_token + logits]
    fitted = CALIBRATED.model_copy(update={"activation": Activation(rule="per_total_parameters")})
    expected = fitted.activation.gb_per_billion_parameters * parameter_counts(arch).total
    assert compare(frame, {name: arch}, fitted)["predicted"].tolist() == pytest.approx([4 * expected, expected])


@pytest.mark.parametrize("gpu", ["A100-80GB", "H100-80GB"])
def test_the_longest_context_is_that_of_the_capacity_grid(grids, gpus, measured, gpu):
    """For the whole model on the whole device; the grid is the vectorised sweep, which shares no line with this."""
    grid = grids["calibrated"]
    grid = grid[(grid["gpu"] == gpu) & (grid["case"] == "estimate") & (grid["batch_size"] == 16)].set_index("model")
    names = ["Mixtral-8x7B", "OLMoE-1B-7B", "Switch-Base-128", "DeepSeek-MoE-16B"]
    blank = dict.fromkeys(measured.columns, "")
    context = [
        blank
        | {"model": name, "dtype": "bfloat16", "layers": float(len(CATALOGUE[name].layers()))}
        | {"measurement": "max_context_tokens", "phase": "context", "batch": 16.0, "tokens": math.nan, "value": 1000.0}
        for name in names
    ]
    device = blank | {"measurement": "device_bytes", "value": float(gpus[gpu].memory_bytes("visible"))}
    found = compare(pd.DataFrame([device, *context]), CATALOGUE, CALIBRATED)
    assert found["model"].tolist() == names
    expected = grid.loc[names, "baseline_max_context"].to_numpy()
    assert found["predicted"].tolist() == expected.tolist()
    assert found["error_pct"].to_numpy() == pytest.approx(100 * (expected / 1000.0 - 1))
    with pytest.raises(UserError, match="device_bytes: got 0 values, expected one"):
        compare(pd.DataFrame(context), CATALOGUE, CALIBRATED)


def test_models_without_an_architecture_are_left_out_and_named(measured, compared):
    assert left_out(measured, TINY_ARCHITECTURES) == {"gpt-oss": "not in the catalogue"}
    assert set(compared["model"]) == set(TINY_ARCHITECTURES)
    assert tuple(compared.columns) == COLUMNS
    single = measured.assign(dtype=measured["dtype"].where(measured["model"] != "OLMoE", "float32"))
    assert "float32" in left_out(single, TINY_ARCHITECTURES)["OLMoE"]
    not_loaded = single.replace({"dtype": {"float32": ""}})
    assert "was not loaded" in left_out(not_loaded, TINY_ARCHITECTURES)["OLMoE"]
    assert "OLMoE" not in set(compare(single, TINY_ARCHITECTURES, CALIBRATED)["model"])


def test_what_is_predicted_but_not_there_is_no_small_error(measured):
    name = "Jamba"
    rows = measured[(measured["model"] == name) & (measured["measurement"] == "state_bytes_per_sequence")]
    found = compare(rows.assign(value=0.0), TINY_ARCHITECTURES, CALIBRATED)
    assert found["error_pct"].tolist() == [math.inf]


def test_the_plan_of_the_full_measurement_is_cut_where_it_says():
    """`layers` of memory.yaml on the catalogue: the comments there say which layers are left."""
    plan = yaml.safe_load((PLANS / "memory.yaml").read_text())["models"]
    jamba_plan, deepseek = plan["Jamba-1.5-Large"]["config"], plan["DeepSeek-V3-671B"]["config"]
    cut = with_layers(CATALOGUE["Jamba-1.5-Large"], jamba_plan["num_hidden_layers"])
    assert attention_layers(cut) == 1
    assert attention_layers(with_layers(cut, len(cut.layers()) - 1)) == 0, "5 are the fewest with an attention layer"
    cut = with_layers(CATALOGUE["DeepSeek-V3-671B"], deepseek["num_hidden_layers"])
    assert moe_layers(cut) == deepseek["num_hidden_layers"] - deepseek["first_k_dense_replace"]


@given(name=st.sampled_from(sorted(CATALOGUE)), data=st.data())
@settings(deadline=None, max_examples=40)
def test_fewer_layers_have_the_same_embeddings(name, data):
    arch = CATALOGUE[name]
    depth = len(arch.layers())
    layers = data.draw(st.integers(1, depth))
    whole, cut = parameter_counts(arch), parameter_counts(with_layers(arch, layers))
    assert cut.embeddings == whole.embeddings
    assert (cut.total < whole.total) is (layers < depth)
    assert (with_layers(arch, layers).layers() == arch.layers()) is (layers == depth)
    assert with_layers(arch, layers).layers() == arch.layers()[:layers]
    for impossible in (0, depth + 1):
        with pytest.raises(UserError, match=f"layers: got {impossible}, expected 1 to the {depth}"):
            with_layers(arch, impossible)


def test_the_reported_scenario_predicts_no_architecture(measured):
    with pytest.raises(UserError, match="architecture: got 'reported', expected published"):
        compare(measured, TINY_ARCHITECTURES, REPORTED)


def test_a_written_file_is_read_as_it_is(measured):
    plain = pd.read_csv(io.StringIO(RECORDED), keep_default_na=False, na_values={name: [""] for name in NUMBERS})
    for name in NUMBERS:
        np.testing.assert_array_equal(measured[name], plain[name])
    assert measured["method"].tolist() == plain["method"].tolist()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            ("tensors,,,117056", "tensors,,,nan"),
            "memory.csv: line 2: value: got 'nan', expected a number of at least 0",
        ),
        (("tensors,,,73728", "tensors,,,-1"), "memory.csv: line 3: value: got '-1', expected a number of at least 0"),
        (("1,48,384.0", "0,48,384.0"), "memory.csv: line 5: batch: got '0', expected a number above 0"),
        (("OLMoE,3,", "OLMoE,three,"), "memory.csv: line 2: layers: got 'three', expected a number above 0"),
        (("method", "way"), "memory.csv: has no column 'method'"),
    ],
)
def test_a_file_that_cannot_be_true_is_refused(tmp_path, change, told):
    folder = recorded_in(tmp_path / "memory", RECORDED.replace(*change, 1))
    with pytest.raises(UserError) as refused:
        read_memory(folder)
    assert told in str(refused.value)
    assert str(refused.value).endswith(f"python -m prophet_moe.collect memory --out {folder}")


def test_build_without_a_measured_gpu_is_one_line(tmp_path):
    files = SimpleNamespace(models=[], measured=[], table=tmp_path / "memory_validation.csv")
    with pytest.raises(UserError, match=r"memory_validation\.csv: nothing that it could be made from is available"):
        build(files, {"scenario": CALIBRATED.model_dump(mode="json")})
