"""A campaign of real measurements on this machine: all of it, a crash, an overrun, a stop, and what goes on after."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from tests.waiting import wait_until

from prophet_moe.collect import hardware, machine
from prophet_moe.collect.plan import read_as

ROOT = Path(__file__).parents[2]
PLANS = ROOT / "config/measurements"
NAME = "this"
REPEATS = 1500
HERE: dict = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "text": True}
"""One thread: tiny kernels of several threads take a hundred times as long where other processes have the cores."""


def quick(kind: str) -> dict:
    return yaml.safe_load((PLANS / f"{kind}_quick.yaml").read_text())


def written(path: Path, content: dict) -> str:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def plan(folder: Path, **phases: tuple[dict, float]) -> Path:
    """Write a campaign of these phases, each a plan of its kind and the seconds that it is expected to take."""
    variants = {
        kind: [{"file": written(folder / f"{kind}.yaml", content), "seconds": seconds}]
        for kind, (content, seconds) in phases.items()
    }
    path = folder / "campaign.yaml"
    written(path, {"out": str(folder / "out"), "needs_gpu": False, "start_seconds": 2, "phases": variants})
    return path


def long_hardware(parts: int = 60) -> dict:
    """Return a plan of so many parts of attention, each of about a quarter of a second."""
    content = quick("hardware")
    content["kernels"] |= {"rotated_bytes": 1, "repeats": REPEATS}
    content["experts"]["shapes"] = [content["experts"]["shapes"][0] | {"model": "first"}]
    (single,) = (shape for shape in content["attention"]["geometries"] if shape["model"] == "single")
    sizes = {"batches": list(range(1, parts + 1)), "contexts": [32], "backends": ["flash"]}
    content["attention"] = {"geometries": [single]} | sizes
    return content


def command(path: Path, minutes: float) -> list[str]:
    arguments = ["campaign", "--plan", str(path), "--name", NAME, "--minutes", str(minutes)]
    return [sys.executable, "-m", "prophet_moe.collect", *arguments]


def campaign(path: Path, minutes: float = 10) -> tuple[int, dict[str, dict], str]:
    """Run a campaign; its exit code, the phases of its summary by kind, and what it told."""
    done = subprocess.run(command(path, minutes), **HERE, capture_output=True, check=False)
    return done.returncode, phases_of(path), done.stderr + done.stdout


def phases_of(path: Path) -> dict[str, dict]:
    summary = json.loads((path.parent / "out/campaign" / NAME / "campaign.json").read_text())
    assert summary["whole"] == all(phase["state"] in ("measured", "there already") for phase in summary["phases"])
    return {phase["phase"]: phase for phase in summary["phases"]}


def states(phases: dict[str, dict]) -> dict[str, str]:
    return {kind: phase["state"] for kind, phase in phases.items()}


def out(path: Path, kind: str) -> Path:
    return path.parent / "out" / kind / NAME


def is_whole(path: Path, kind: str) -> bool:
    found = out(path, kind)
    return found.is_dir() and {f.name for f in found.iterdir()} == {"SHA256SUMS", "metadata.json", f"{kind}.csv"}


def rows_of(path: Path) -> list[dict[str, str]]:
    with (out(path, "hardware") / "hardware.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def parts_of(path: Path, kind: str) -> list[Path]:
    return sorted(part for part in (out(path, kind) / "parts").glob("*.json") if not part.name.startswith("."))


@contextmanager
def started(path: Path, kind: str, parts: int) -> Iterator[tuple[subprocess.Popen, int]]:
    """Start a campaign and wait until a phase has so many parts; the campaign, and the process id of that phase."""
    running = subprocess.Popen(command(path, 10), **HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: len(parts_of(path, kind)) >= parts, running)
        (child,) = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        yield running, int(child)
    finally:
        running.kill()
        running.wait()


def test_quick_campaign_measures_all_and_is_not_made_again(tmp_path):
    """Every kind, by the quick plans (of memory: two models); the second call measures and changes nothing."""
    memory = quick("memory")
    memory["models"] = {name: memory["models"][name] for name in ("OLMoE", "Mixtral")}
    kinds = {kind: quick(kind) for kind in ("hardware", "memory", "prefetch", "overhead")} | {"memory": memory}
    path = plan(tmp_path, **{kind: (content, 10) for kind, content in kinds.items()})
    code, phases, told = campaign(path)
    assert code == 0, told
    assert states(phases) == dict.fromkeys(kinds, "measured")
    assert all(is_whole(path, kind) for kind in kinds)
    made = {file: file.stat().st_mtime_ns for kind in kinds for file in out(path, kind).iterdir()}
    code, phases, told = campaign(path)
    assert code == 0
    assert states(phases) == dict.fromkeys(kinds, "there already")
    assert f"{NAME}: 4 of 4 phases are whole" in told
    assert {file: file.stat().st_mtime_ns for kind in kinds for file in out(path, kind).iterdir()} == made


def test_phase_that_fails_leaves_the_others_whole(tmp_path):
    """An expert of 600 TB: the reason is its own line; what was measured before it is kept."""
    content = quick("hardware")
    content["experts"]["shapes"].append({"model": "huge", "hidden": 10**7, "inner": 10**7, "gated": True})
    path = plan(tmp_path, hardware=(content, 10), overhead=(quick("overhead"), 10))
    code, phases, _ = campaign(path)
    assert code == 1
    assert states(phases) == {"hardware": "failed", "overhead": "measured"}
    told = "hardware plan: expert_ffn-huge does not fit in the memory of the "
    assert phases["hardware"]["reason"].startswith(told)
    assert is_whole(path, "overhead")
    assert [part.stem for part in parts_of(path, "hardware")] == ["expert_ffn-gated", "expert_ffn-plain"]


def test_crash_of_a_phase_leaves_the_others_whole(tmp_path):
    """SIGKILL from outside, as by the kernel where host memory is short; a second call goes on with the parts."""
    path = plan(tmp_path, hardware=(long_hardware(12), 10), overhead=(quick("overhead"), 10))
    with started(path, "hardware", parts=2) as (running, child):
        os.kill(child, signal.SIGKILL)
        running.communicate()
        assert running.returncode == 1
    phases = phases_of(path)
    assert states(phases) == {"hardware": "failed", "overhead": "measured"}
    assert phases["hardware"]["reason"] == "killed by SIGKILL"
    kept = [row for part in parts_of(path, "hardware") for row in json.loads(part.read_text())["rows"]]
    code, phases, told = campaign(path)
    assert code == 0, told
    assert states(phases) == {"hardware": "measured", "overhead": "there already"}
    assert phases["hardware"]["resumed"]
    measured = [row["seconds"] for row in rows_of(path)]
    assert {str(row["seconds"]) for row in kept} <= set(measured)


def test_overrun_ends_at_its_share_and_gets_the_rest(tmp_path):
    """Others that claim 400 s leave hardware some 10 s of 412; they take few, and it goes on with what they left."""
    path = plan(
        tmp_path, hardware=(long_hardware(), 1), overhead=(quick("overhead"), 200), prefetch=(quick("prefetch"), 200)
    )
    code, phases, told = campaign(path, minutes=412 / 60)
    assert code == 0, told
    order = [line.split(" after")[0] for line in told.splitlines() if " after " in line][:4]
    assert order == ["hardware: cut off", "overhead: measured", "prefetch: measured", "hardware: measured"]
    assert phases["hardware"]["resumed"]
    assert len({(row["measurement"], row["model"], row["batch"]) for row in rows_of(path)}) == 1 + 60


def test_budget_ends_and_the_next_call_goes_on(tmp_path):
    """A quarter of a minute is too little: nothing runs on, what there was no time for says so, and parts are kept."""
    path = plan(tmp_path, hardware=(long_hardware(), 5), prefetch=(quick("prefetch"), 200))
    begun = time.monotonic()
    code, phases, _ = campaign(path, minutes=0.25)
    assert time.monotonic() - begun < 15 + 5
    assert code == 1
    assert states(phases) == {"hardware": "cut off", "prefetch": "left out"}
    assert "another call goes on" in phases["hardware"]["reason"]
    assert phases["prefetch"]["reason"].startswith("takes about 200 s")
    assert not out(path, "prefetch").exists()
    kept = len(parts_of(path, "hardware"))
    assert kept == int(phases["hardware"]["parts"].split("/")[0])
    with started(path, "hardware", parts=kept + 1) as (running, _):
        assert running.poll() is None


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_campaign_ends_its_phase_and_tells(tmp_path, stop):
    """Ctrl-C, the end of a job, a lost connection: the phase ends too, its parts stay, the summary is written."""
    path = plan(tmp_path, hardware=(long_hardware(), 30), overhead=(quick("overhead"), 10))
    with started(path, "hardware", parts=1) as (running, child):
        running.send_signal(stop)
        told, _ = running.communicate(timeout=20)
        assert running.returncode == 1
        assert not Path(f"/proc/{child}").exists()
    assert "Traceback" not in told
    phases = phases_of(path)
    assert states(phases) == {"hardware": "interrupted", "overhead": "left out"}
    assert phases["overhead"]["reason"] == "the campaign was stopped before"
    assert parts_of(path, "hardware")


def test_second_campaign_at_once_is_refused(tmp_path):
    path = plan(tmp_path, hardware=(long_hardware(), 30))
    with started(path, "hardware", parts=1):
        done = subprocess.run(command(path, 1), **HERE, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: {tmp_path / 'out/campaign'}: another campaign is running there. Wait for its end, or stop it."
    ]


@pytest.mark.skipif(machine.on_gpu(), reason="there is a GPU")
def test_campaign_without_a_gpu_is_refused():
    arguments = [sys.executable, "-m", "prophet_moe.collect", "campaign", "--minutes", "12"]
    done = subprocess.run(arguments, **HERE, capture_output=True, check=False)
    advice = "To try a campaign without one: --plan config/measurements/campaign_quick.yaml"
    assert (done.returncode, done.stderr) == (1, f"error: machine: PyTorch sees no GPU. {advice}\n")


def test_missing_driver_command_is_told_as_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert machine._ask_driver("driver_version", "power.draw") == {"driver_version": "unknown", "power.draw": "unknown"}


def test_short_hardware_plan_is_sound():
    hardware.plan.check(read_as(hardware.Plan, PLANS / "hardware_short.yaml"))
