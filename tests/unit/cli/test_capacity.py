"""The command `capacity`: its verdict, what it rests on, new models, GPUs by numbers, and whatever may be typed."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe import params
from prophet_moe.capacity.answer import Question, most_resident, step
from prophet_moe.capacity.hit_rates import HitRates, hit_rates_for, read_hit_rates
from prophet_moe.capacity.memory import device_bytes, model_memory
from prophet_moe.capacity.reference import evaluate
from prophet_moe.errors import UserError
from prophet_moe.hardware.profile import datasheet_profile
from prophet_moe.precision import BF16, FORMATS, KV_FORMATS
from prophet_moe.routing.cross_model import popularity_cvs as pool
from prophet_moe.routing.popularity_cv import pooled_for, read_popularity_cvs
from prophet_moe.settings.scenario import CALIBRATED
from tests.conftest import ROOT, own_models
from tests.fuzzing import fuzz

TABLES = ROOT / "tables/data"
NEW = {
    "name": "Qwen3-30B-A3B",
    "published_name": "Qwen3-30B-A3B",
    "licence": "Apache-2.0",
    "published_total_b": 30.5,
    "sources": ["its config.json"],
    "architecture": {
        "hidden": 2048,
        "vocab": 151936,
        "native_context": 40960,
        "mixers": {
            "attention": {"kind": "softmax", "heads": 32, "kv_heads": 4, "head_dim": 128, "qk_norm": "per_head"}
        },
        "ffns": {"moe": {"kind": "moe", "experts": 128, "top_k": 8, "ffn": 768}},
        "blocks": {"M": {"mixer": "attention", "ffn": "moe"}},
        "pattern": ["48 x M"],
    },
}
RTX_4090 = ["--memory", "23.5", "--bandwidth", "1008", "--link", "31.5"]


@pytest.fixture
def ask(command):
    """Run prophet-moe; returns what it printed, and what it told on standard error."""
    return lambda *arguments, **given: command(*arguments, **given)[1:]


@pytest.fixture
def project(tmp_path):
    """A copy of the configuration and of the tables that the command reads, with a model that no build has seen."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "tables/data").mkdir(parents=True)
    for name in ("routing_variation.csv", "routing_law_fits.csv", "frontier.csv"):
        shutil.copy(TABLES / name, tmp_path / "tables/data" / name)
    shutil.copytree(ROOT / "resources/observations", tmp_path / "resources/observations")
    (tmp_path / "fitted.yaml").write_text("scenarios: {calibrated: {routing: {variation: fitted}}}\n")
    (tmp_path / "config/models/Qwen3-30B-A3B.yaml").write_text(yaml.safe_dump(NEW))
    return tmp_path


def test_tests_of_the_artifact_leave_out_models_of_a_user(project, models):
    """The numbers of the report do not depend on what is added; this failed with a KeyError in every golden test.

    A copy of a model of the report keeps its published name until that is edited.
    """
    copied = yaml.safe_load((project / "config/models/OLMoE-1B-7B.yaml").read_text()) | {"name": "My-MoE"}
    del copied["reported"]
    (project / "config/models/My-MoE.yaml").write_text(yaml.safe_dump(copied))
    assert own_models(project / "config/models") == models


def of(shown: str) -> list[dict]:
    """The JSON that was printed; NaN is no JSON."""
    return json.loads(shown, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_capacity_of_a_model_that_no_build_has_seen_is_pooled(ask, project):
    arguments = ("--gpu", "A100-80GB", "--configfile", "fitted.yaml", "--json")
    shown, error = ask("capacity", "--model", "Qwen3-30B-A3B", *arguments, folder=project)
    assert not error
    (found,) = of(shown)
    pooled = read_popularity_cvs(TABLES / "routing_variation.csv", "staggered")["Qwen3-235B"]
    assert f"popularity CV of experts is {pooled.value:.3g}" in found["rests_on"]["routing"]
    assert "pooled from" in found["rests_on"]["routing"]
    assert found["numbers"]["resident_experts"] == 8


def test_capacity_without_its_tables_pools_or_says_what_to_do(ask, project):
    arguments = ("capacity", "--model", "Qwen3-30B-A3B", "--gpu", "A100-80GB", "--batch", "16", "--json")
    arguments += ("--configfile", "fitted.yaml")
    with_table, _ = ask(*arguments, folder=project)
    (project / "tables/data/routing_variation.csv").unlink()
    (project / "tables/data/frontier.csv").unlink()
    without, error = ask(*arguments, folder=project)
    assert not error
    assert of(without)[0]["numbers"] == pytest.approx(of(with_table)[0]["numbers"], rel=1e-5, nan_ok=True)
    assert of(without)[0]["decode_step"]["hit_rate"] is None
    (project / "tables/data/routing_law_fits.csv").unlink()
    shown, error = ask(*arguments, folder=project)
    assert shown == ""
    assert error.startswith("error: tables/data/routing_law_fits.csv: no such file") and "\n" not in error


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("OLMoE-1B-7B", "popularity CV of experts is 0.402, published counts RO-001 "),
        ("Qwen3-30B-A3B", "popularity CV of experts is 1.16, published counts RO-002 (C4, prefill)"),
        ("Qwen3-235B", "popularity CV of experts is 0.459, pooled from published counts of OLMoE-1B-7B, "),
        ("DBRX-132B", "popularity CV of experts is 0.231, pooled from published counts of OLMoE-1B-7B, "),
    ],
)
def test_capacity_by_published_counts_says_whose(ask, project, model, told):
    arguments = ("capacity", "--model", model, "--gpu", "A100-80GB", "--json")
    shown, error = ask(*arguments, folder=project)
    assert not error
    rests = of(shown)[0]["rests_on"]["routing"]
    assert told in rests
    assert rests.endswith("; the model has no counts of its own") == ("pooled from" in told)
    (project / "resources/observations/routing.csv").unlink()
    _, error = ask(*arguments, folder=project)
    assert error.startswith("error: resources/observations/routing.csv: no such file") and "\n" not in error


@pytest.mark.parametrize("router", [(128, 8), (8, 2), (512, 10), (4, 3), (8, 8)])
@pytest.mark.parametrize("batching", ["staggered", "decode_step", "prefill"])
def test_pooled_for_is_what_a_build_would_write(router, batching):
    known = read_popularity_cvs(TABLES / "routing_variation.csv", batching)
    (built,) = pool(pd.read_csv(TABLES / "routing_law_fits.csv"), {"new": router}, batching)
    found = pooled_for("new", *router, known)
    assert (found.model, found.source, found.pooled) == (built.model, built.source, True)
    assert (found.value, found.low) == pytest.approx((built.value, built.low), rel=1e-5)


def test_verdict_comes_first_and_tells_time_and_its_basis(ask, project):
    shown, _ = ask("capacity", "--model", "Qwen3-30B-A3B", *RTX_4090, "--context", "8192", folder=project)
    text = " ".join(shown.split())
    words = text[: text.index("experts per MoE layer that Prophet keeps")]
    for sentence in (
        "With all 128 experts of every MoE layer on the GPU, the model does not fit",
        "8 of 128 experts per MoE layer, the model fits, with a context of up to 40,960 tokens",
        "A context of 8,192 tokens does not fit with all experts resident (38.0 GB are missing), and fits with",
        "the hit rate is not known below 16 experts, so none of the needed experts counts as resident",
        "leaves memory for 44 of 128 experts per MoE layer. With them, a decode step at 8,192 tokens takes",
        "of Qwen3-235B, which has the same E and k",
        "each is a lower bound, their ratio is not a bound",
    ):
        assert sentence in words


def test_json_holds_every_gpu_and_batch_that_is_asked_for(ask):
    options = ("--gpu", "A100-80GB", "V100-32GB", "--batch", "1", "16", "--batch", "16", "64", "--json")
    found = of(ask("capacity", "--model", "Mixtral-8x7B", *options)[0])
    pairs = [(entry["gpu"], entry["batch"]) for entry in found]
    assert pairs == [(gpu, batch) for gpu in ("A100-80GB", "V100-32GB") for batch in (1, 16, 64)]
    assert found[0]["numbers"]["kv_extension_factor"] is None


def test_batch_is_one_unless_it_is_given(ask):
    arguments = ("capacity", "--model", "Mixtral-8x7B", "--gpu", "A100-80GB", "--json")
    assert ask(*arguments) == ask(*arguments, "--batch", "1")


@pytest.mark.parametrize(
    ("model", "gpu", "batch"), [("DeepSeek-MoE-16B", "A100-40GB", 4), ("Qwen3-235B", "H100-80GB", 1)]
)
def test_context_tells_what_is_left(ask, records, model, gpu, batch):
    row = records["calibrated"].set_index(["model", "gpu", "batch_size"]).loc[model, gpu, batch]
    for context in (row["prophet_max_context"], row["prophet_max_context"] + 1):
        options = ("--gpu", gpu, "--batch", str(batch), "--context", str(context), "--json")
        (found,) = of(ask("capacity", "--model", model, *options)[0])
        fits = context == row["prophet_max_context"]
        assert (found["context"]["prophet_left_gb"] >= 0) == fits
        assert any("fits with Prophet's set" in sentence for sentence in found["verdict"]) == fits


def test_overlay_brings_its_scenario(ask):
    arguments = ("capacity", "--model", "Mixtral-8x7B", "--gpu", "A100-80GB", "--json")
    overlay = ("--configfile", "config/overlays/int8_weights.yaml", "--scenario", "int8")
    whole, half = (of(ask(*arguments, *options)[0])[0]["numbers"] for options in ((), overlay))
    assert half["baseline_expert_gb"] == pytest.approx(whole["baseline_expert_gb"] / 2, rel=1e-3), "and some scales"
    assert half["baseline_fits"] and not whole["baseline_fits"]


@pytest.mark.parametrize("engine", ["vllm-0.10", "sglang", "llama.cpp"])
def test_engine_has_a_budget_whose_lines_add_up(ask, engine):
    options = ("--model", "Mixtral-8x7B", "--gpu", "H200-141GB", "--json")
    (found,) = json.loads(ask("capacity", *options, "--engine", engine)[0])
    lines = [line["baseline_bytes"] for line in found["budget"]]
    assert sum(lines[1:]) == pytest.approx(lines[0], abs=2)
    assert found["engine"] == engine
    assert found["engine_budget"]["pool_bytes"] == pytest.approx(lines[-1], abs=2)
    (plain,) = json.loads(ask("capacity", *options)[0])
    assert (plain["engine"], plain["engine_budget"]) == ("ideal", None)
    assert plain["numbers"]["baseline_max_context"] != found["numbers"]["baseline_max_context"]


def test_engine_shows_how_every_line_comes_about(ask):
    printed, _ = ask("capacity", "--model", "Qwen3-30B-A3B", "--gpu", "H100-80GB", "--engine", "vllm-0.10")
    assert "151,936 entries x 1,024 sequences x 38.5 B" in printed
    assert "reservation.logits_bytes" in printed


def test_gpu_by_numbers_is_the_listed_one(ask):
    spec = yaml.safe_load((ROOT / "config/gpus.yaml").read_text())["A100-80GB"]
    memory, speed = str(spec["memory_visible_gib"]), (str(spec["hbm_gb_per_s"]), str(spec["link_gb_per_s"]))
    given = ("--memory", memory, "--bandwidth", speed[0], "--link", speed[1], "--tflops", str(spec["peak_tflops"]))
    arguments = ("capacity", "--model", "OLMoE-1B-7B", "--batch", "16", "--json")
    listed, described = (of(ask(*arguments, *options)[0])[0] for options in (("--gpu", "A100-80GB"), given))
    assert (listed["estimate"]["basis"], described["estimate"]["basis"]) == ("operators", "share of bandwidth")
    assert listed["estimate"]["bound_ms"] == pytest.approx(described["estimate"]["bound_ms"])
    for name in ("decode_step", "decode_step_with_most_resident"):
        assert listed[name]["bound"] == pytest.approx(described[name]["bound"])
        assert listed[name]["hit_rate"] == described[name]["hit_rate"]
    timed = ("gpu", "rests_on", "estimate", "verdict", "decode_step", "decode_step_with_most_resident")
    listed, described = ({key: found[key] for key in found if key not in timed} for found in (listed, described))
    assert listed == described


def test_capacity_tells_the_estimate_beside_the_bound(ask):
    (found,) = of(ask("capacity", "--model", "Mixtral-8x7B", "--gpu", "H100-80GB", "--batch", "4", "--json")[0])
    estimate, step = found["estimate"], found["decode_step"]
    assert estimate["bound_ms"] == pytest.approx(step["bound"]["all_resident_ms"])
    assert estimate["ms"] == pytest.approx(step["all_resident_ms"])
    assert estimate["bound_ms"] <= estimate["low_ms"] <= estimate["ms"] <= estimate["high_ms"]
    assert step["on_demand_ms"] > step["bound"]["on_demand_ms"]
    assert (step["times"], "estimated from operators on that GPU" in found["rests_on"]["times"]) == ("estimated", True)
    assert found["verdict"][-1].startswith("Times are estimated from what others measured: that step takes")


def test_capacity_of_reported_constants_has_no_estimate(ask):
    arguments = ("--model", "Mixtral-8x7B", "--gpu", "H100-80GB", "--scenario", "reported", "--json")
    (found,) = of(ask("capacity", *arguments)[0])
    assert found["estimate"] is None and "estimated" not in " ".join(found["verdict"])


def test_gpu_without_bandwidths_has_no_times(ask):
    (found,) = of(ask("capacity", "--model", "OLMoE-1B-7B", "--memory", "24", "--json")[0])
    assert found["decode_step"] is None
    assert found["rests_on"]["times"] == "none, because --bandwidth and --link are missing"


MISTAKES = {
    "no GPU": ([], "--gpu: missing, expected a GPU of config/gpus.yaml"),
    "unknown GPU": (
        ["--gpu", "RTX-4090"],
        "Or describe one that is not listed: --memory GIB --bandwidth GB/S --link GB/S",
    ),
    "speed without memory": (["--link", "32"], "--link: describes a GPU that is not listed"),
    "one speed": (["--memory", "24", "--link", "32"], "--link: is not enough to compute times"),
    "memory of nothing": (["--memory", "0"], "--memory: got 0, expected 1 to 10,000 GiB"),
    "memory that is no number": (["--memory", "nan"], "--memory: got nan, expected 1 to 10,000 GiB"),
    "memory with a unit": (["--memory", "24GB"], "--memory: got 24GB, expected 1 to 10,000 GiB"),
    "bandwidth in bytes": (["--memory", "24", "--bandwidth", "1e12"], "--bandwidth: got 1e12, expected 1 to 100,000"),
    "endless batch": (
        ["--gpu", "A100-80GB", "--batch", "1000000000000"],
        "--batch: got 1000000000000, expected a whole",
    ),
    "half a batch": (["--gpu", "A100-80GB", "--batch", "2.5"], "--batch: got 2.5, expected a whole number of 1 to"),
    "no context": (["--gpu", "A100-80GB", "--context", "0"], "--context: got 0, expected a whole number of 1 to"),
    "no overlay": (["--gpu", "A100-80GB", "--configfile", "nope.yaml"], "nope.yaml: no such file"),
    "scenario of an overlay": (
        ["--gpu", "A100-80GB", "--scenario", "int8"],
        "name the overlay that has it: --configfile",
    ),
    "unknown engine": (["--gpu", "A100-80GB", "--engine", "vlm"], "engine: unknown engine 'vlm', config/engines has"),
    "no engine file": (["--gpu", "A100-80GB", "--engine", "nope.yaml"], "nope.yaml: no such file"),
    "engine of the report": (
        ["--gpu", "A100-80GB", "--engine", "vllm", "--scenario", "reported"],
        "--engine: got vllm, expected ideal with a scenario of the report's constants",
    ),
    "unknown option": (["--gpu", "A100-80GB", "--bits", "4"], "unrecognized arguments: --bits 4"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(ask, case):
    options, problem = MISTAKES[case]
    shown, error = ask("capacity", "--model", "DBRX-132B", *options)
    assert shown == ""
    assert error.startswith("error: ") and "\n" not in error
    assert problem in error


@pytest.mark.parametrize(
    "words",
    [
        "models",
        "model import config.json",
        "capacity --model DBRX-132B --gpu A100-80GB",
        "sim list",
        "data list",
        "trace describe x",
        "config check",
    ],
)
def test_commands_outside_the_project_say_so(ask, tmp_path, words):
    shown, error = ask(*words.split(), folder=tmp_path)
    assert shown == ""
    assert error == "error: config/experiment.yaml: no such file. Run it in the project's folder."


@pytest.mark.parametrize(
    "words", ["", "models", "model", "model import", "capacity", "trace", "trace import", "sim", "sim run"]
)
def test_help_has_an_example(ask, words):
    shown, _ = ask(*words.split(), "--help")
    assert "example" in shown and "prophet-moe " in shown.split("example", 1)[1]


def test_version_is_that_of_the_project(ask):
    version = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    assert ask("--version")[0] == f"prophet-moe {version.split(chr(34))[1]}\n"


def test_make_help_names_every_target():
    shown = subprocess.run(["make", "--silent", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    for target in set(phony.split()[1:]) - {"all", "help"}:
        assert f"make {target} " in shown


def test_capacity_imports_nothing_slow():
    slow = "{'pandas', 'numba', 'scipy', 'matplotlib'}"
    code = f"import sys, prophet_moe.cli.main; sys.exit(', '.join({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_models_notes_a_total_that_differs_from_the_published(ask, project):
    moe = NEW["architecture"]["ffns"]["moe"] | {"ffn": 6144}
    wrong = NEW | {"architecture": NEW["architecture"] | {"ffns": {"moe": moe}}}
    (project / "config/models/Qwen3-30B-A3B.yaml").write_text(yaml.safe_dump(wrong))
    shown, _ = ask("models", folder=project)
    row = next(line for line in shown.splitlines() if "Qwen3-30B-A3B" in line)
    assert [cell.strip() for cell in row.split("│")[1:4]] == ["Qwen3-30B-A3B", "233.47", "30.5"]
    (note,) = (line for line in shown.splitlines() if line.startswith("note: Qwen3-30B-A3B: "))
    assert "+665.3%" in note
    shown, _ = ask("capacity", "--model", "Qwen3-30B-A3B", "--gpu", "A100-80GB", "--json", folder=project)
    assert "+665.3% off the total" in of(shown)[0]["rests_on"]["note"]


@pytest.mark.parametrize(
    ("stated", "off"), [(30.5, 0), (31.0, 0), (30.4, -0.0), (30, 0), (31, 0), (32, -0.030), (29.5, 0.033)]
)
def test_deviation_allows_for_the_rounding_of_the_stated_total(stated, off):
    from prophet_moe.catalog import ModelSpec

    spec = ModelSpec.model_validate(NEW | {"published_total_b": float(stated)})
    assert params.deviation_from_published(spec) == pytest.approx(off, abs=0.003)


def test_no_model_of_the_artifact_deviates(models):
    assert all(abs(params.deviation_from_published(spec)) < params.NOTED_DEVIATION for spec in models.values())


def test_hit_rates_are_linear_between_what_was_simulated():
    rates = HitRates("m", "t", 8, [(2, 0.25), (4, 0.75), (8, 1.0)])
    assert [rates.at(resident) for resident in (1, 2, 3, 4, 6, 8, 9)] == [None, 0.25, 0.5, 0.75, 0.875, 1.0, 1.0]


def test_hit_rates_of_another_model_need_its_e_and_k():
    known = {"a": HitRates("a", "t", 8, [(8, 1.0)]), "b": HitRates("b", "t", 128, [(128, 1.0)])}
    assert hit_rates_for("a", 8, 2, known, {}) is known["a"]
    assert hit_rates_for("new", 128, 8, known, {"a": 2, "b": 8}) is known["b"]
    assert hit_rates_for("new", 128, 1, known, {"a": 2, "b": 8}) is None
    assert hit_rates_for("a", 16, 2, known, {"a": 2}) is None, "E was changed since the frontier was built"


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "model,strategy,batch_size\nx,on_demand,1\n"])
def test_hit_rates_of_a_file_that_is_no_frontier(tmp_path, content):
    path = tmp_path / "frontier.csv"
    path.write_text(content)
    if not content:
        assert read_hit_rates(path, 1) == {}
        return
    with pytest.raises(UserError, match="is no frontier"):
        read_hit_rates(path, 1)


def question(models, gpus, popularity_cvs, model: str, gpu: str, batch: int, rates: HitRates | None) -> Question:
    """A question under the default scenario."""
    from dataclasses import replace

    memory = replace(model_memory(models[model], CALIBRATED), popularity_cv=popularity_cvs[model].value)
    device, profile = device_bytes(gpus[gpu], CALIBRATED), datasheet_profile(gpu, gpus[gpu])
    arch = models[model].architecture
    return Question(model, gpu, batch, arch, BF16, memory, device, CALIBRATED, profile, 4096, None, rates)


def test_step_takes_what_the_frontier_simulated(models, gpus, popularity_cvs):
    """Both fetch on demand, so that the hit rate decides; the routing that stands in needs somewhat fewer experts.

    Both take the times of the datasheet.
    """
    frontier = pd.read_csv(TABLES / "frontier.csv").query(
        "strategy == 'on_demand' and resident_share < 1 and not waves"
    )
    for batch, closest, farthest in ((1, 0.05, 0.1), (16, 0.15, 0.4)):
        apart = []
        known = read_hit_rates(TABLES / "frontier.csv", batch)
        for row in frontier[frontier["batch_size"] == batch].itertuples():
            asked = question(models, gpus, popularity_cvs, row.model, row.gpu, batch, known[row.model])
            unique = evaluate(asked.memory, asked.device_bytes, batch, CALIBRATED)["unique_experts"]
            apart.append(step(asked, unique, row.resident_experts).slowdown / row.slowdown_bound - 1)
        assert len(apart) > 50
        assert 0 <= np.median(apart) < closest
        # Hit rates are means over samples, the slowdown by the datasheet is that of the first.
        assert min(apart) > -0.05 and max(apart) < farthest


@pytest.mark.parametrize("context", [1, 4096, 10**9])
def test_most_resident_is_what_trying_each_count_finds(models, gpus, popularity_cvs, context):
    asked = question(models, gpus, popularity_cvs, "DeepSeek-MoE-16B", "V100-32GB", 4, None)
    needed = 4 * context * asked.memory.kv_bytes_per_token
    tried = [
        count
        for count in range(1, 65)
        if evaluate(asked.memory, asked.device_bytes, 4, CALIBRATED, count)["prophet_free_bytes"] >= needed
    ]
    assert most_resident(asked, context) == (max(tried) if tried else None)


MODELS = sorted(path.stem for path in (ROOT / "config/models").glob("*.yaml"))
PLAUSIBLE = {
    "--model": st.sampled_from(MODELS),
    "--gpu": st.sampled_from(["A100-80GB", "V100-32GB", "H200-141GB"]),
    "--batch": st.integers(1, 10**6).map(str),
    "--context": st.integers(1, 10**9).map(str),
    "--memory": st.floats(1, 10_000).map(str),
    "--bandwidth": st.floats(1, 100_000).map(str),
    "--link": st.floats(1, 100_000).map(str),
    "--tflops": st.floats(1, 100_000).map(str),
    "--scenario": st.sampled_from(["calibrated", "reported"]),
    "--engine": st.sampled_from(["ideal", "vllm-0.7", "vllm", "sglang", "llama.cpp", "transformers"]),
    "--format": st.sampled_from(["shipped", *FORMATS]),
    "--kv-format": st.sampled_from(list(KV_FORMATS)),
}
ANYTHING = st.one_of(
    st.integers(-(10**12), 10**12).map(str),
    st.floats().map(str),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
)
TYPED = st.sampled_from(list(PLAUSIBLE)).flatmap(
    lambda option: st.tuples(st.just(option), st.one_of(*[PLAUSIBLE[option]] * 9, ANYTHING))
)


@fuzz(60)
@given(typed=st.lists(TYPED, max_size=8), model=st.sampled_from(MODELS), speeds=st.booleans())
def test_whatever_is_typed_ends_in_an_answer_or_one_line(ask, typed, model, speeds):
    options = ["--model", model, *(RTX_4090 if speeds else RTX_4090[:2])]
    options += [part for option, value in typed for part in (option, value)]
    shown, error = ask("capacity", *options, "--json")
    assert error in ("", "0") or (error.startswith("error: ") and "\n" not in error and shown == "")
    if error == "":
        for entry in of(shown):
            assert 1 <= entry["batch"] <= 10**6 and entry["verdict"]
            timed = entry["decode_step"]
            assert timed is None or 0 < timed["all_resident_ms"] <= timed["on_demand_ms"] < math.inf
            fits = [entry["numbers"][f"{who}_max_context"] for who in ("baseline", "prophet")]
            assert all(0 <= context < math.inf for context in fits)
