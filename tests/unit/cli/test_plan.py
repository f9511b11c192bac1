"""The command `plan`: its text, its JSON, its refusals, and the examples of its page."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prophet_moe.cli.main import main
from prophet_moe.planning.pages import CHART_COLUMNS, chart
from prophet_moe.planning.solve import frontier
from tests.conftest import ROOT
from tests.unit.docs.test_commands import commands
from tests.unit.planning.situations import situation

CURVES = "routing,experts,top_k,slots,hit_rate,miss_factor_own,miss_factor_stand_in\n" + "".join(
    f"{routing},{experts},{k},{slots},{rate},1.5,2\n"
    for routing, experts, k in (
        ("qwen3-30b-a3b", 128, 8),
        ("qwen3-30b-a3b-top6", 128, 4),
        ("gpt-oss-20b", 32, 4),
        ("gpt-oss-20b", 8, 2),
        ("deepseek-v4-flash", 256, 8),
        ("qwen3.8-flash-next", 512, 10),
    )
    for slots, rate in ((k, 0.3), (experts // 4, 0.8), (experts // 2, 0.95))
)
"""Some hit rates, so that no test depends on a build."""
SMALL = ["--model", "Qwen3-30B-A3B", "--gpu", "RTX4090-24GB"]
RANGE = {"low", "middle", "high"}
SPLIT = {
    "context": int,
    "slots": int,
    "slots_per_layer": int,
    "resident_share": float,
    "hit_rate": RANGE,
    "tokens_per_s": RANGE,
    "step_seconds": RANGE,
    "resident_step_seconds": RANGE,
    "slowdown": RANGE,
    "prefill_seconds": float,
    "works": bool,
    "refusals": list,
}
PLAN = {
    "version": int,
    "model": str,
    "gpu": str,
    "scenario": str,
    "engine": str,
    "law": str,
    "batch": int,
    "arrivals": (dict, type(None)),
    "experts": int,
    "top_k": int,
    "moe_layers": int,
    "unique_experts": float,
    "expert_bytes": int,
    "room_bytes": int,
    "host_bytes_needed": int,
    "native_context": int,
    "rests_on": {"experts", "hit rates", "times", "host memory"},
    "recommendation": {"kind", "context", "sentence", "reasons"},
    "decision_tree": {"leaf", "agrees", "sentence"},
    "contexts": list,
    "limits": list,
    "longest_contexts": list,
    "commands": list,
    "budget": list,
}
"""The form of the JSON of version 1: keys with their types, or with the keys inside."""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of what the command reads, with hit rates of its own."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("config", "resources/observations", "resources/operators", "resources/routing", "resources/arrivals"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "tables/data").mkdir(parents=True)
    (folder / "tables/data/planner_hit_curves.csv").write_text(CURVES)
    for name in ("docs/examples", "resources/traces/small-6x8-top2"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


@pytest.fixture
def plan(project, command):
    """Run `prophet-moe plan`; returns what it printed, and what it told on standard error."""
    return lambda *arguments: command("plan", *arguments, folder=project)[1:]


def of_form(found: dict, form: dict) -> None:
    """Check keys, in their order, and the types or keys of what they hold."""
    assert list(found) == list(form)
    for key, expected in form.items():
        if isinstance(expected, set):
            assert set(found[key]) == expected, key
        else:
            assert isinstance(found[key], (int, float) if expected is float else expected), key


def test_json_has_the_form_of_its_version(plan):
    out, error = plan(*SMALL, "--context", "4096", "16384", "--limit", "1.2", "10", "--json")
    assert not error
    (found,) = json.loads(out)
    assert found["version"] == 1
    of_form(found, PLAN)
    for each in found["contexts"]:
        of_form(each, SPLIT)
    assert [(each["limit"], each["context"]) for each in found["limits"]] == [
        (1.2, 4096),
        (1.2, 16384),
        (10.0, 4096),
        (10.0, 16384),
    ]
    met = next(each for each in found["limits"] if each["met"])
    assert met["split"]["slots"] == met["fewest_slots"] <= met["most_slots"]
    assert met["split"]["slowdown"]["middle"] <= met["limit"]
    assert {each["engine"] for each in found["commands"]} >= {
        "vLLM",
        "llama.cpp",
        "FreeToken",
        "KTransformers",
        "SGLang",
    }
    for each in found["commands"]:
        assert list(each) == ["engine", "unit", "value", "command", "counter", "note", "source"]
    assert all(list(each) == ["what", "value", "formula", "source"] for each in found["budget"])


def test_budget_lines_add_up_to_the_room(plan):
    out, _ = plan(*SMALL, "--context", "4096", "--json")
    (found,) = json.loads(out)
    lines = {each["what"]: each["value"] for each in found["budget"]}
    taken = sum(float(value.removeprefix("- ").split()[0]) for value in lines.values() if value.startswith("- "))
    device = float(lines["device memory"].split()[0])
    assert device - taken == pytest.approx(found["room_bytes"] / 1e9, abs=0.01)
    (split,) = found["contexts"]
    cache = float(lines["KV cache"].split()[0]) * 1e9
    assert split["slots"] == pytest.approx((found["room_bytes"] - cache) / found["expert_bytes"], abs=2)


def test_text_has_recommendation_tables_chart_and_commands(plan):
    out, error = plan(*SMALL, "--explain", "--host-memory", "64")
    assert not error
    for words in (
        "At 40,960 tokens: ",
        "The decision tree (report 002",
        "the most slots beside each context",
        "the fewest slots within each slowdown",
        "context against slowdown",
        "--moe-expert-cache-size",
        "--moe-cache-size",
        "device_memory_ratio",
        "every line with its formula and its source",
        "config/links.yaml",
        "source: vllm-project/vllm#37190",
        "68.7 GB can be pinned",
    ):
        assert words in out, words


def test_hit_rates_by_hand_and_by_trace_replace_the_stand_in(plan):
    out, _ = plan(*SMALL, "--curve", "8:0.4,0.25:0.9", "--json")
    assert "given by hand" in json.loads(out)[0]["rests_on"]["hit rates"]
    mixtral = ["--model", "Mixtral-8x7B", "--gpu", "A100-40GB", "--context", "4096"]
    out, error = plan(*mixtral, "--trace", "resources/traces/small-6x8-top2", "--json")
    assert not error
    (found,) = json.loads(out)
    assert "replay of resources/traces/small-6x8-top2" in found["rests_on"]["hit rates"]


def test_split_that_does_not_work_has_no_commands(plan):
    out, error = plan("--model", "DeepSeek-V3-671B", "--gpu", "RTX4090-24GB", "--context", "4096")
    assert not error and "none: no engine can keep that split." in out and "vllm serve" not in out
    assert "lack before any expert has a slot" in out


def test_engine_gives_its_memory_and_its_law(plan):
    rooms = {}
    for engine, law in (("ideal", "in_graph_gather"), ("freetoken", "in_graph_gather"), ("vllm", "host_managed")):
        found = json.loads(plan(*SMALL, "--engine", engine, "--context", "4096", "--json")[0])[0]
        assert found["law"] == law
        rooms[engine] = found["room_bytes"]
    assert rooms["vllm"] < rooms["ideal"]


def test_host_laws_are_slower_than_clean_links(plan):
    speeds = [
        json.loads(plan(*SMALL, "--law", law, "--context", "4096", "--json")[0])[0]["contexts"][0]["tokens_per_s"]
        for law in ("in_graph_gather", "host_managed")
    ]
    assert speeds[0]["middle"] > speeds[1]["middle"]
    assert speeds[0]["low"] == speeds[1]["low"] and speeds[0]["high"] == speeds[1]["high"]


def test_gpu_by_memory_alone_has_slots_and_no_times(plan):
    (found,) = json.loads(plan("--model", "Qwen3-30B-A3B", "--memory", "23.5", "--json")[0])
    assert found["contexts"][0]["slots"] > 0 and found["contexts"][0]["tokens_per_s"] is None
    assert found["limits"][0]["fewest_slots"] is None


def test_host_that_shares_the_memory_of_the_gpu_is_told(plan):
    out, _ = plan("--model", "Qwen3-235B", "--gpu", "DGX-Spark-128GB", "--context", "4096", "--json")
    (found,) = json.loads(out)
    assert {each["kind"] for each in found["contexts"][0]["refusals"]} == {"host_memory"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "Qwen3-30B-A3"], "did you mean 'Qwen3-30B-A3B'"),
        (["--gpu", "RTX-4090"], "unknown GPU"),
        (["--context", "0"], "--context: got 0"),
        (["--batch", "2.5"], "--batch: got 2.5"),
        (["--limit", "0.5"], "--limit: got 0.5"),
        (["--curve", "8:2"], "--curve: got '8:2'"),
        (["--trace", "resources/traces/small-6x8-top2"], "has 8 experts and k = 2, expected 128 and 8"),
        (["--link-preset", "fast"], "--link-preset: unknown name 'fast'"),
        (["--engine", "orca"], "orca"),
        (["--scenario", "reported"], "the report's constants, which tell no time"),
        (["--host-memory", "-1"], "--host-memory: got -1"),
        (["--context", *["4096"] * 65], "--context: got 65 values"),
        (["--arrivals", "azure"], "no law and no file 'azure', expected azure-conversation"),
        (["--arrivals", "docs/examples/README.md"], "docs/examples/README.md"),
        (["--arrivals", "azure-code", "--batch", "2"], "--batch: not allowed with argument --arrivals"),
        (["--arrivals", "azure-code", "--model", "DeepSeek-V3-671B"], "no split serves them"),
        (["--instances", "2"], "--instances: shares arrivals, and none are given"),
        (["--arrivals", "azure-code", "--instances", "0"], "--instances: got 0"),
    ],
)
def test_mistakes_end_in_one_line(plan, arguments, words):
    out, error = plan(*SMALL, *arguments)
    assert words in error and "\n" not in error and not out


def test_dense_model_is_sent_to_capacity(plan, project):
    text = (
        (ROOT / "config/models/current/Qwen3-30B-A3B.yaml").read_text().replace("name: Qwen3-30B-A3B", "name: dense", 1)
    )
    start, end = text.index("  ffns:"), text.index("  blocks:")
    (project / "dense.yaml").write_text(f"{text[:start]}  ffns:\n    moe: {{kind: dense, ffn: 768}}\n{text[end:]}")
    _, error = plan("--model", "dense.yaml", "--gpu", "RTX4090-24GB")
    assert "is dense: it has no experts to plan slots for" in error


def test_missing_table_of_hit_rates_says_what_to_do(plan, project):
    table = project / "tables/data/planner_hit_curves.csv"
    table.rename(table.with_suffix(".away"))
    try:
        _, error = plan(*SMALL)
        assert "planner_hit_curves.csv: no such file" in error and "--curve" in error
        assert not plan(*SMALL, "--curve", "8:0.4")[1]
    finally:
        table.with_suffix(".away").rename(table)


def test_examples_of_the_page_run(plan):
    shown = [
        words[2:] for words in commands((ROOT / "docs/plan.md").read_text()) if words[:2] == ["prophet-moe", "plan"]
    ]
    examples = [words for words in shown if words and "NAME" not in words]
    assert len(examples) >= 4
    for words in examples:
        out, error = plan(*words)
        assert not error and out, shlex.join(words)


def test_worked_example_is_what_the_command_prints(monkeypatch, capsys):
    first, block = re.findall(r"```\n(.*?)```", (ROOT / "docs/plan.md").read_text(), re.DOTALL)[:2]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", shlex.split(first))
    main()
    assert block in capsys.readouterr().out


def test_chart_marks_limits_ranges_and_what_does_not_work():
    s = situation(room_bytes=300.0)
    splits = frontier(s, [100, 200, 280])
    lines = chart(splits, [1.2])
    assert len(lines) == 4 and lines[-1].endswith("slowdown")
    assert all(len(line) < CHART_COLUMNS + 30 for line in lines)
    assert all("o" in line for line in lines[:3]) and "|" in lines[0]
    assert lines[2].endswith("does not work") and "does not" not in lines[0]


def test_plan_needs_neither_pandas_nor_numba(project):
    code = (
        "import sys; sys.argv = ['prophet-moe', 'plan', *sys.argv[1:]]\n"
        "from prophet_moe.cli.main import main\nmain()\n"
        "assert not {'pandas', 'numba', 'scipy', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *SMALL], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
