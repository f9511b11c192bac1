"""Rows as people gather them: what their words become, and that every kind predicts them or says why not."""

import json

import numpy as np
import pandas as pd
import pytest

from prophet_moe.errors import UserError
from prophet_moe.observed import gathered, hit_rates, times
from prophet_moe.observed.context import load_context
from prophet_moe.observed.schema import HIT_RATES, KINDS, RESULT_COLUMNS, ROUTING, TIMES, read_observations
from tests.conftest import ROOT
from tests.unit.cli.test_model import ask  # noqa: F401

TIME_HEADER = (
    "id,table,kind,engine,version,model,model_as_named,dtype,gpu,gpus,tp,ep,batch,input_len,output_len,quantity,value,"
    "unit,measured_ms,datasheet,hit_rate,cache,pcie,link_gb_per_s,missing_gb_per_token,resident_ms,context_assumed,"
    "weight_bits_assumed,expert_bits_assumed,kv_bits_assumed,unique_experts,layers,weights_ms,experts_ms,attention_ms,"
    "head_ms,all_reduce_ms,clean,source,notes"
)
STEP = {
    "id": "a",
    "table": "1",
    "kind": "e2e decode",
    "engine": "vllm",
    "model": "Qwen3-30B-A3B",
    "dtype": "bf16",
    "gpu": "RTXPRO6000",
    "batch": "4",
    "input_len": "1000",
    "output_len": "200",
    "quantity": "tokens/s of all",
    "value": "400",
    "unit": "tok/s",
    "clean": "1",
    "source": "a/b#1",
}
HIT_HEADER = (
    "id,engine,version,model,quantisation,experts_per_layer,top_k,moe_layers,gpu,link,slots,slots_scope,resident_share,"
    "policy,batch,hit_rate,hit_kind,tokens_per_s,tokens_per_s_resident,tokens_per_s_no_cache,prompt_kind,source,notes"
)
HIT = {
    "id": "a",
    "engine": "imp",
    "model": "Qwen3-30B-A3B",
    "quantisation": "Q4_K_M GGUF",
    "gpu": "RTX 5090 32 GB",
    "link": "PCIe 5.0 x16; 25.6 GB/s measured at one expert",
    "slots": "73",
    "slots_scope": "per layer, projections",
    "policy": "LRU per layer, demand copies, host-managed",
    "batch": "1",
    "hit_rate": "0.74",
    "hit_kind": "measured",
    "tokens_per_s": "21",
    "tokens_per_s_resident": "311.24",
    "prompt_kind": "bench, synthetic, 256 cold tokens",
    "source": "kekzl/imp#1",
}


@pytest.fixture(scope="module")
def context():
    """The catalogue of this project."""
    return load_context(ROOT)


def read(tmp_path, header: str, row: dict[str, str], kind) -> pd.DataFrame:
    """The row of a file with that header."""
    names = header.split(",")
    path = tmp_path / "mine.csv"
    pd.DataFrame([[row.get(name, "") for name in names]], columns=names).to_csv(path, index=False)
    return read_observations(path, kind)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_reads_and_predicts_its_own_rows(name, context):
    kind = KINDS[name]
    rows = read_observations(ROOT / f"resources/observations/{name}.csv", kind)
    module = __import__(f"prophet_moe.observed.{name}", fromlist=["predicted"])
    found = module.predicted(rows.sample(12, random_state=1), context)
    assert list(found.columns) == [column.name for column in RESULT_COLUMNS]
    assert (found["clean"] == (found["left_out"] == "")).all()
    assert found.loc[found["clean"], "predicted"].notna().all()
    assert {module.within_goal(row) for row in found[found["clean"]].to_dict("records")} <= {True, False, None}


def test_rate_of_all_sequences_becomes_the_time_of_a_step(tmp_path, context):
    rows = read(tmp_path, TIME_HEADER, STEP, TIMES)
    assert rows.loc[0, "measured_ms"] == pytest.approx(10)
    assert rows.loc[0, "context_assumed"] == 1100
    (found,) = times.predicted(rows, context).to_dict("records")
    assert found["quantity"] == times.STEP_TIME and found["clean"]
    assert found["low"] <= found["predicted"] <= found["high"]


def test_time_needs_only_what_fixes_it(tmp_path, context):
    header = "id,source,model,gpu,dtype,batch,input_len,measured_ms"
    row = {"id": "a", "source": "a/b#1", "model": "Mixtral-8x7B", "gpu": "H100-80GB", "dtype": "bf16", "batch": "1"}
    found = times.predicted(read(tmp_path, header, row, TIMES), context)
    assert found.loc[0, "left_out"] == "measured_ms is not stated"
    found = times.predicted(read(tmp_path, header, row | {"input_len": "9", "measured_ms": "20"}, TIMES), context)
    assert found.loc[0, "clean"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "Unheard-Of"}, "no model 'Unheard-Of'"),
        ({"gpu": "Abacus"}, "no datasheet of 'Abacus'"),
        ({"dtype": "Q5_K_M"}, "format 'Q5_K_M' is not known"),
        ({"batch": "large, not stated"}, "batch is not stated"),
        ({"clean": "0", "notes": "list; graphs suspected off"}, "graphs suspected off"),
        ({"dtype": ""}, "the format of the weights is not stated"),
        ({"gpus": "256", "ep": "256"}, "expected at most 128, the experts of a layer"),
        ({"kind": "GPU link"}, "no prediction for rows of kind 'GPU link'"),
    ],
)
def test_time_that_cannot_be_predicted_has_a_reason(changes, told, tmp_path, context):
    found = times.predicted(read(tmp_path, TIME_HEADER, STEP | changes, TIMES), context)
    assert not found.loc[0, "clean"] and told in found.loc[0, "left_out"]


def test_constants_of_a_row_are_not_fixed_by_its_group(context):
    rows = read_observations(ROOT / times.OBSERVED, TIMES)
    row = rows[(rows["clean"] == "1") & (rows["gpu"] == "H100-80GB") & (rows["engine"] == "trtllm")].head(1)
    using = times.known(context.models, context.gpus, ROOT / times.OPERATORS)
    fixed = times.features(rows.astype({name: float for name in ("gpus", "ep", "batch")}), using)
    unseen = times.Unseen(fixed[fixed["clean"]], using)
    held = unseen.constants(row.iloc[0])
    assert held.with_operators.layer_us != using.constants.with_operators.layer_us
    assert unseen.constants({"model": "another", "engine": "vllm", "gpu": "H100-80GB"}) == using.constants


def test_words_of_a_cache_become_its_numbers(tmp_path):
    row = read(tmp_path, HIT_HEADER, HIT | {"experts_per_layer": "128"}, HIT_RATES).loc[0]
    assert (row["engine_kind"], row["slots_unit"], row["slots_scope"]) == ("host_managed", "projections", "per_layer")
    assert (row["start"], row["tokens"], row["hit_kind"], row["link_gb_per_s"]) == ("cold", 256, "counter", 25.6)
    assert row["resident_share"] == pytest.approx(73 / 3 / 128)
    sized = {"slots": "2000 MiB", "slots_scope": "global, bytes", "link": "PCIe 4.0 x8"}
    row = read(tmp_path, HIT_HEADER, HIT | sized, HIT_RATES).loc[0]
    assert (row["slots"], row["slots_unit"], row["slots_scope"]) == (2000 * 2**20, "bytes", "global")
    assert row["link_gb_per_s"] == pytest.approx(12.6)


def test_hit_rate_takes_what_is_known_of_model_and_engine(tmp_path, context):
    rows = read(tmp_path, HIT_HEADER, HIT | {"resident_share": "0.19"}, HIT_RATES)
    found = hit_rates.predicted(rows, context)
    assert found["clean"].all() and found["predicted"].notna().all()
    (rate,) = found[found["quantity"] == "hit_rate"].to_dict("records")
    assert rate["predicted"] == pytest.approx(0.74, abs=0.05)
    assert hit_rates.within_goal(rate)


@pytest.mark.parametrize(
    ("changes", "quantity", "told"),
    [
        ({"policy": "static, most used"}, "hit_rate", "a static set"),
        ({"policy": "LRU, CPU computes misses"}, "tokens_per_s", "hybrid"),
        ({"hit_rate": ""}, "tokens_per_s", "no hit rate is given beside it"),
        ({"batch": "ShareGPT, unstated"}, "tokens_per_s", "the batch size is not stated"),
        ({"model": "unnamed (reference rig)"}, "hit_rate", "the model is not named"),
        ({"slots": "8-100 GB", "slots_scope": "global, bytes"}, "hit_rate", "resident_share is not given"),
    ],
)
def test_hit_rate_that_is_not_comparable_has_a_reason(changes, quantity, told, tmp_path, context):
    found = hit_rates.predicted(read(tmp_path, HIT_HEADER, HIT | changes, HIT_RATES), context).set_index("quantity")
    assert told in found.loc[quantity, "left_out"]


def test_long_runs_of_many_experts_are_cut(tmp_path, context, monkeypatch):
    seen = []
    monkeypatch.setattr(hit_rates, "hit_curve", lambda *given: seen.append(given[2].tokens) or [])
    monkeypatch.setattr(hit_rates, "rates_at", lambda *_: [0.5])
    large = {"experts_per_layer": "4096", "top_k": "64", "resident_share": "0.5", "model": "large", "tokens": "100000"}
    hit_rates.predicted(read(tmp_path, HIT_HEADER + ",tokens", HIT | large, HIT_RATES), context)
    assert set(seen) == {128}


def test_routing_without_ids_is_numbered_by_its_lines(tmp_path):
    header = "model,source,licence_of_source,experts,top_k,balancing,u_2,u_4,u_8,u_16,u_32,u_64,law_0.4838_u_2,note"
    row = {"model": "Mine", "source": "a/b#1", "experts": "8", "top_k": "2", "balancing": "aux-loss-free bias"}
    row |= {f"u_{batch}": str(8 * (1 - 0.75**batch)) for batch in (2, 4, 8, 16, 32, 64)} | {"licence_of_source": "MIT"}
    found = read(tmp_path, header, row, ROUTING).loc[0]
    assert (found["id"], found["balancing"], found["licence"]) == ("mine-2", "bias", "MIT")


@pytest.mark.parametrize(
    ("header", "row", "kind", "told"),
    [
        (TIME_HEADER, STEP | {"measured_ms": "-1"}, TIMES, "measured_ms: got -1"),
        (TIME_HEADER, STEP | {"value": "120", "unit": "%"}, TIMES, "value: got 120 %"),
        (TIME_HEADER, STEP | {"batch": "0"}, TIMES, "batch: got 0"),
        (HIT_HEADER, HIT | {"hit_rate": "1.2"}, HIT_RATES, "hit_rate: got 1.2, expected 0 to 1"),
        (HIT_HEADER, HIT | {"tokens_per_s": "-3"}, HIT_RATES, "tokens_per_s: got -3"),
        (HIT_HEADER, HIT | {"experts_per_layer": "4", "top_k": "8"}, HIT_RATES, "top_k: got 8"),
        (TIME_HEADER, STEP | {"input_len": "1e300"}, TIMES, "input_len: got '1e300'"),
        (HIT_HEADER + ",start", HIT | {"start": "lukewarm"}, HIT_RATES, "start: got 'lukewarm', expected cold or warm"),
        (HIT_HEADER, HIT | {"experts_per_layer": "99999999"}, HIT_RATES, "experts_per_layer: got 1e+08"),
    ],
)
def test_impossible_cell_is_refused_by_its_line(header, row, kind, told, tmp_path):
    with pytest.raises(UserError) as refused:
        read(tmp_path, header, row, kind)
    assert told in str(refused.value) and "line 2" in str(refused.value)


def test_counted_tokens_are_those_of_the_decode():
    texts = {
        "3 real prompts x 512 tokens": "512",
        "one prompt, 128 tokens, traced": "128",
        "585-token prompt, 256 tokens, warm": "256",
        "113 steps": "113",
        "bench": "",
        "short, 4096 tokens of KV": "",
    }
    assert {text: gathered.hit_rates({"prompt_kind": text})["tokens"] for text in texts} == texts


@pytest.mark.parametrize("kind", ["times", "hit_rates"])
def test_check_prints_json_of_every_kind(kind, ask, tmp_path):  # noqa: F811
    rows = pd.read_csv(ROOT / f"resources/observations/{kind}.csv", dtype=str, keep_default_na=False)
    path = tmp_path / "mine.csv"
    rows.iloc[:6].to_csv(path, index=False)
    told = json.loads(ask("observe", "check", path, "--kind", kind, "--json")[0])
    assert set(told) == {"rows", "errors", "errors_by_engine", "errors_by_gpu", "beyond_goal", "left_out"}
    assert {row["kind"] for row in told["rows"]} == {kind}
    assert np.isfinite([group["median_pct"] for group in told["errors"]]).all()
