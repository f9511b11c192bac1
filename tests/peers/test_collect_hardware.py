"""The measurement of the hardware: the plan is the catalogue's, kernels compute what they say, a kill loses nothing."""

import csv
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from tests.waiting import wait_until

from prophet_moe.collect import hardware
from prophet_moe.collect.__main__ import main
from prophet_moe.collect.expert import expert_ffn
from prophet_moe.collect.hardware.copies import copying
from prophet_moe.collect.hardware.kernels import attend, attend_latent, sampled
from prophet_moe.collect.hardware.plan import Expert, ExpertPlan, Geometry, Sampling
from prophet_moe.collect.hardware.timing import WARMUP
from prophet_moe.collect.plan import read_as
from prophet_moe.errors import UserError

ROOT = Path(__file__).parents[2]
PLANS = ROOT / "config/measurements"
FULL = read_as(hardware.Plan, PLANS / "hardware.yaml")
ON_GPU = torch.cuda.is_available()

TINY = read_as(hardware.Plan, PLANS / "hardware_quick.yaml")


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "hardware.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """Measure what the tiny plan lists, and give the folder that it leaves."""
    folder = tmp_path_factory.mktemp("measured")
    hardware.collect(TINY, folder)
    return folder


def test_the_plan_has_the_experts_and_attention_of_the_catalogue():
    # Here, since a GPU machine may lack pydantic, and the other tests run there.
    from prophet_moe.catalog import load_models

    models = load_models(ROOT / "config/models")
    planned = {shape.model: (shape.hidden, shape.inner, shape.gated) for shape in FULL.experts.shapes}
    assert planned.pop("gpt-oss-20b") == (2880, 2880, True)
    assert planned == {
        name: (model.architecture.hidden, model.architecture.moe.ffn, model.architecture.moe.gated)
        for name, model in models.items()
    }
    for shape in FULL.attention.geometries:
        attention = models[shape.model].architecture.mixers["attention"]
        if attention.kind == "latent":
            expected = (attention.heads, 1, attention.kv_lora_rank + attention.rope_head_dim, attention.kv_lora_rank)
        else:
            expected = (attention.heads, attention.kv_heads, attention.head_dim, 0)
        assert (shape.heads, shape.kv_heads, shape.head_dim, shape.latent_values) == expected


def test_parts_of_the_hardware_plan_take_under_a_minute_each():
    """Copies of the largest size over a slow link (2 GB/s), the part that takes longest."""
    transfers = FULL.transfers
    samples = WARMUP + transfers.repeats
    per_stream = sum(
        max(size, min(transfers.bytes_per_sample, transfers.calls_per_sample * size)) for size in transfers.sizes
    )
    assert samples * max(transfers.streams) * per_stream / 2e9 < 60


@pytest.mark.skipif(ON_GPU, reason="a GPU measures copies, too")
def test_a_cpu_measures_what_has_a_meaning_there(measured):
    rows = rows_of(measured)
    experts = [row for row in rows if row["measurement"] == "expert_ffn"]
    assert [(row["model"], row["tokens"]) for row in experts] == [
        (model, tokens) for model in ("gated", "plain") for tokens in ("1", "3")
    ]
    attention = [row for row in rows if row["measurement"] == "attention_decode"]
    assert [(row["model"], row["batch"], row["context"], row["backend"]) for row in attention] == [
        (name, batch, context, backend)
        for name, backend in (("grouped", "flash"), ("single", "flash"), ("latent", "matmul"))
        for batch in ("1", "2")
        for context in ("32", "64")
    ], "cuDNN is not on a CPU and left out"
    assert {row["head_sharing"] for row in attention} == {"enable_gqa", "none", "one latent"}
    assert len(rows) == len(experts) + len(attention)
    assert {row["clock"] for row in rows} == {"wall"}
    assert {row["launch"] for row in rows} == {"eager"}
    for row in rows:
        assert 0 < float(row["seconds_low"]) <= float(row["seconds"]) <= float(row["seconds_high"])
        assert row["repeats"] == "4"
        assert row["dtype"] == "bfloat16"
    metadata = json.loads((measured / "metadata.json").read_text())
    assert metadata["machine"]["device"] == "cpu"
    assert metadata["plan"] == dataclasses.asdict(TINY)


@pytest.mark.skipif(not ON_GPU, reason="copies between host and device need a GPU")
def test_a_gpu_measures_every_copy_and_the_overlap(measured):
    rows = rows_of(measured)
    copies = [row for row in rows if row["measurement"] in ("h2d", "d2h") and row["repeats"] == "2"]
    many = {(row["measurement"], row["memory"], row["streams"], row["bytes"]) for row in copies}
    assert len(many) == 2 * 2 * 2 * 2
    latency = [row for row in copies if row["calls_per_sample"] == "1" and row["bytes"] == "64"]
    assert sorted(row["clock"] for row in latency) == ["event"] * 4 + ["wall"] * 4
    assert [row["bytes"] for row in rows if row["measurement"] == "d2d"] == ["64", "4096"]
    assert [row["work"] for row in rows if row["measurement"] == "overlap"] == ["copy", "compute", "both"]
    for kind in ("expert_ffn", "attention_decode"):
        launches = [row["launch"] for row in rows if row["measurement"] == kind]
        assert launches.count("eager") == launches.count("graph") > 0


@pytest.mark.skipif(not ON_GPU, reason="nvidia-smi needs a GPU")
def test_a_gpu_tells_its_link_and_its_clocks(measured):
    metadata = json.loads((measured / "metadata.json").read_text())
    machine = metadata["machine"]
    assert all(int(machine[name]) > 0 for name in ("pcie.link.gen.max", "pcie.link.width.max", "cpus"))
    assert machine["driver"][0].isdigit()
    assert machine["cpu"]
    for state in metadata["state_after_part"].values():
        assert [state[name].split()[-1] for name in ("clocks.sm", "clocks.mem", "power.draw")] == ["MHz", "MHz", "W"]
        assert int(state["temperature.gpu"]) > 0


def test_bytes_are_exact_and_turns_go_through_all_copies(measured):
    rows = rows_of(measured)
    size = {(row["model"], row["batch"], row["context"]): int(row["bytes"]) for row in rows}
    assert size["gated", "", ""] == 3 * 32 * 48 * 2
    assert size["plain", "", ""] == 2 * 16 * 64 * 2
    assert size["grouped", "2", "64"] == 2 * 64 * 2 * 16 * 2 * 2, "keys and values of the KV heads alone"
    assert size["latent", "2", "64"] == 2 * 64 * 24 * 2, "one latent is both"
    for row in (row for row in rows if row["copies"]):
        copies, calls = int(row["copies"]), int(row["calls_per_sample"])
        assert copies == math.ceil(TINY.kernels.rotated_bytes / int(row["bytes"]))
        assert calls >= TINY.kernels.calls_per_sample
        assert calls % copies == 0


@pytest.mark.skipif(ON_GPU, reason="a nap cannot be captured in a CUDA graph")
def test_a_sample_is_divided_by_its_calls():
    """Naps of known length: a sample of 40 lasts 40 ms at least, one nap far less."""
    sampling = Sampling(rotated_bytes=1, calls_per_sample=40, repeats=3)
    (row,) = sampled(sampling, "nap", time.sleep, [(0.001,)])
    assert row["calls_per_sample"] == 40
    assert 0.001 <= row["seconds"] < 0.04


@pytest.mark.parametrize("gated", [True, False])
def test_an_expert_is_its_formula(gated):
    torch.manual_seed(0)
    tokens, w1, w3, w2 = (torch.randn(shape) for shape in ((5, 8), (12, 8), (12, 8), (8, 12)))
    raised = tokens @ w1.T
    expected = (raised * raised.sigmoid() * (tokens @ w3.T) if gated else raised.clamp(min=0)) @ w2.T
    up = torch.cat([w1, w3]) if gated else w1
    torch.testing.assert_close(expert_ffn(tokens, up.T, w2.T, gated=gated), expected)
    out = torch.empty_like(expected)
    assert expert_ffn(tokens, up.T, w2.T, gated=gated, out=out) is out
    torch.testing.assert_close(out, expected)


def test_attention_is_its_formula():
    torch.manual_seed(0)
    query, keys, values = torch.randn(2, 8, 1, 16), torch.randn(2, 2, 30, 16), torch.randn(2, 2, 30, 16)
    every_head = [cache.repeat_interleave(4, 1) for cache in (keys, values)]
    weights = (query @ every_head[0].mT / 4).softmax(-1)
    torch.testing.assert_close(attend(query, keys, values), weights @ every_head[1])
    latent = torch.randn(2, 30, 16)
    weights = (query[:, :, 0] @ latent.mT / 4).softmax(-1)
    shared = attend_latent(query[:, :, 0], latent, values=10)
    torch.testing.assert_close(shared, weights @ latent[:, :, :10])


def test_copies_move_other_bytes_each_time():
    source = torch.arange(200, dtype=torch.uint8)
    target = torch.zeros_like(source)
    run = copying([(target, source)], 8, 3, repeats=4)
    for call in range(1, 5):
        run()
        assert target.tolist() == [*range(24 * call), *[0] * (200 - 24 * call)]
    whole = copying([(target, source)], 200, 1, repeats=4)
    whole()
    assert target.tolist() == source.tolist()


@pytest.mark.parametrize(
    ("section", "changed", "told"),
    [
        ("transfers", {"repeats": 1}, "transfers.repeats: got 1, expected at least 2"),
        ("transfers", {"sizes": []}, "transfers.sizes: is empty, expected at least one entry"),
        ("transfers", {"sizes": [4096, -1]}, r"transfers.sizes\[1\]: got -1, expected at least 1"),
        ("transfers", {"memory": ["swapped"]}, "transfers.memory: got 'swapped', expected some of pinned, pageable"),
        ("kernels", {"calls_per_sample": 0}, "kernels.calls_per_sample: got 0, expected at least 1"),
        ("experts", {"shapes": TINY.experts.shapes * 2}, "experts.shapes: holds 'gated' twice"),
        ("attention", {"backends": ["flashy"]}, "attention.backends: got 'flashy', expected some of flash, cudnn"),
        (
            "attention",
            {"geometries": [Geometry("odd", 8, 3, 16, 0)]},
            r"attention.geometries\[0\].kv_heads: got 3, expected a divisor of the 8 heads",
        ),
        (
            "attention",
            {"geometries": [Geometry("wide", 8, 1, 16, 17)]},
            r"attention.geometries\[0\].latent_values: got 17, expected at most head_dim \(16\)",
        ),
    ],
)
def test_mistakes_in_the_plan_are_one_line(tmp_path, section, changed, told):
    plan = dataclasses.replace(TINY, **{section: dataclasses.replace(getattr(TINY, section), **changed)})
    with pytest.raises(UserError, match=f"hardware plan: {told}"):
        hardware.collect(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_killed_it_goes_on_and_names_what_does_not_fit(tmp_path, monkeypatch):
    """SIGKILL in the middle of the real command; a second one keeps what was measured, and ends at 600 TB."""
    shapes = [*TINY.experts.shapes, Expert("huge", 10**7, 10**7, True)]
    long = Sampling(TINY.kernels.rotated_bytes, TINY.kernels.calls_per_sample, repeats=2000)
    plan = dataclasses.replace(TINY, kernels=long, experts=ExpertPlan(shapes, [1]))
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(dataclasses.asdict(plan)))
    command = ["hardware", "--plan", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "out")]
    parts = tmp_path / "out" / "parts"
    running = subprocess.Popen(
        [sys.executable, "-m", "prophet_moe.collect", *command],
        cwd=ROOT,
        # The number of threads is part of the machine that a measurement names.
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stderr=subprocess.DEVNULL,
    )
    wait_until((parts / "expert_ffn-gated.json").exists, running)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    kept = {part.name: part.read_bytes() for part in parts.glob("[!.]*.json")}
    monkeypatch.setattr(sys, "argv", ["collect", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == (
        f"error: hardware plan: expert_ffn-huge does not fit in the memory of the {'device' if ON_GPU else 'host'}."
        " Make it smaller in the plan, or leave it out."
    )
    assert {name: (parts / name).read_bytes() for name in kept} == kept
    assert {part.name for part in parts.glob("expert_ffn-*")} == {"expert_ffn-gated.json", "expert_ffn-plain.json"}


def test_a_complete_measurement_is_not_made_again(measured):
    assert sorted(file.name for file in measured.iterdir()) == ["SHA256SUMS", "hardware.csv", "metadata.json"]
    with pytest.raises(UserError, match="holds a complete measurement"):
        hardware.collect(TINY, measured)
