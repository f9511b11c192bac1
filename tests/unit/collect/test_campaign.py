"""A campaign without PyTorch: what fits into the time, processes that end at their limit, and what folders tell."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe.collect import campaign
from prophet_moe.collect.__main__ import CAMPAIGN, MEASUREMENTS
from prophet_moe.collect.campaign.phase import CUT_OFF, FAILED, THERE, WAITING, Phase
from prophet_moe.collect.campaign.plan import Variant
from prophet_moe.collect.campaign.process import run
from prophet_moe.collect.campaign.progress import progress_of
from prophet_moe.collect.campaign.schedule import choose
from prophet_moe.errors import UserError
from prophet_moe.files import write_json, write_text
from prophet_moe.routing.store import seal
from prophet_moe.units import GIB
from tests.conftest import ROOT
from tests.waiting import wait_until

PLANS = ROOT / "config/measurements"


def full_plan(monkeypatch) -> campaign.Plan:
    monkeypatch.chdir(ROOT)
    return campaign.read(CAMPAIGN, MEASUREMENTS)


def read_plan(name: str) -> dict:
    return yaml.safe_load((PLANS / f"{name}.yaml").read_text())


def files(chosen: dict[str, Variant]) -> list[str]:
    return [Path(variant.file).stem for variant in chosen.values()]


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (1, ["overhead"]),
        (2, ["hardware_short"]),
        (4, ["hardware_short", "memory_short"]),
        (7, ["hardware_short", "memory_short", "prefetch_short", "overhead"]),
        (12, ["hardware", "memory_short", "prefetch_short", "overhead"]),
        (14, ["hardware", "memory", "prefetch_short", "overhead"]),
        (18, ["hardware", "memory", "prefetch", "overhead"]),
    ],
)
def test_choose_for_minutes_takes_what_is_worth_most(monkeypatch, minutes, expected):
    assert files(choose(full_plan(monkeypatch).phases, 60 * minutes)) == expected


@given(
    st.lists(st.lists(st.floats(1, 1000), min_size=1, max_size=3), max_size=5),
    st.floats(0, 3000),
)
def test_choose_stays_within_time_and_wastes_none(lengths, seconds):
    phases = {str(number): [Variant("", length) for length in some] for number, some in enumerate(lengths)}
    chosen = choose(phases, seconds)
    left = seconds - sum(variant.seconds for variant in chosen.values())
    assert left >= -1e-6
    for name, variants in phases.items():
        if name not in chosen:
            assert min(variant.seconds for variant in variants) > left - 1e-6
    assert list(chosen) == [name for name in phases if name in chosen]


def test_short_plans_are_parts_of_the_full_ones():
    """What a short plan measures, the full one measures in the same way, with other repeats."""
    kinds = ("hardware", "memory", "prefetch")
    full, short = ({kind: read_plan(f"{kind}{suffix}") for kind in kinds} for suffix in ("", "_short"))
    for section, key in (("experts", "shapes"), ("attention", "geometries"), ("overlap", "matmuls")):
        kept = full["hardware"][section][key]
        assert all(entry in kept for entry in short["hardware"][section][key])
    of_numbers = {"transfers": ["sizes"], "experts": ["tokens"], "attention": ["batches", "contexts"]}
    for section, key in ((section, key) for section, keys in of_numbers.items() for key in keys):
        assert set(short["hardware"][section][key]) < set(full["hardware"][section][key])
    for kind, key in (("memory", "models"), ("prefetch", "workloads")):
        assert short[kind][key].items() <= full[kind][key].items()
    for key in ("batches", "capacities"):
        assert set(short["prefetch"][key]) < set(full["prefetch"][key])
    assert {key: short["prefetch"][key] for key in ("policies", "lookahead", "context", "seed")} == {
        key: full["prefetch"][key] for key in ("policies", "lookahead", "context", "seed")
    }


def test_overhead_plan_has_a_model_of_the_memory_plan():
    models = read_plan("overhead")["models"]
    assert models.items() <= read_plan("memory")["models"].items()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("hardware:", "hardwear:", "campaign plan: phases: got 'hardwear', expected some of hardware, memory"),
        ("hardware_quick", "hardware_quack", "config/measurements/hardware_quack.yaml: could not be used"),
        ("seconds: 8", "seconds: 0", r"phases.hardware\[0\].seconds: got 0, expected more"),
        ("start_seconds: 2", "start_second: 2", "start_second: unknown key; did you mean 'start_seconds'"),
    ],
)
def test_read_with_a_mistake_names_it(monkeypatch, tmp_path, old, new, told):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "plan.yaml"
    path.write_text((PLANS / "campaign_quick.yaml").read_text().replace(old, new))
    with pytest.raises(UserError, match=told):
        campaign.read(path, MEASUREMENTS)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('well')", ""),
        ("import sys; print('busy\\r 3/8\\rerror: no memory\\n\\n'); sys.exit(3)", "no memory"),
        ("import sys; sys.exit(3)", "ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    ],
)
def test_run_says_why_a_command_ended(tmp_path, code, reason):
    ended = run(python(code), 60, tmp_path / "logs" / "log")
    assert (ended.reason, ended.cut_off) == (reason, False)


def ends(process: int) -> bool:
    """Whether a process, which was sent SIGKILL, is gone or a zombie within some seconds."""
    for _ in range(500):
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def test_run_at_its_limit_kills_the_whole_group(tmp_path):
    begun = time.monotonic()
    ended = run(python(STUBBORN), 1.5, tmp_path / "log")
    assert ended.cut_off
    assert 1.5 <= ended.seconds <= time.monotonic() - begun
    assert ends(int((tmp_path / "log").read_text()))


def test_run_kills_what_a_command_leaves_behind(tmp_path):
    leaving = STUBBORN.replace("time.sleep(600)\n", "")
    assert run(python(leaving), 60, tmp_path / "log").reason == ""
    assert ends(int((tmp_path / "log").read_text()))


def test_run_interrupted_kills_the_whole_group(tmp_path):
    """Ctrl-C reaches the waiting process alone, since the command leads a session of its own."""
    waiting = (
        "import sys\nfrom pathlib import Path\nfrom prophet_moe.collect.campaign.process import run\n"
        f"run([sys.executable, '-c', {STUBBORN!r}], 600, Path({str(tmp_path / 'log')!r}))"
    )
    process = subprocess.Popen(python(waiting), stderr=subprocess.DEVNULL)
    try:
        log = tmp_path / "log"
        wait_until(lambda: log.exists() and log.read_text().endswith("\n"), process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    finally:
        process.kill()
    assert ends(int((tmp_path / "log").read_text()))


def measured(folder: Path, done: int = 0, parts: int = 4, plan: object = None) -> Path:
    """A folder with so many parts of a measurement of `hardware`, as `collect hardware` leaves it."""
    write_json(folder / "plan.json", {"kind": "hardware", "plan": plan, "machine": {}, "parts": parts})
    for number in range(done):
        write_json(folder / "parts" / f"{number}.json", {"rows": []})
    write_text(folder / "parts" / ".partial.9.json", "{")
    return folder


def sealed(folder: Path, plan: object = None) -> Path:
    write_text(folder / "hardware.csv", "a\n1\n")
    seal(folder, {"kind": "hardware", "plan": plan}, "hardware.csv")
    return folder


def test_progress_counts_parts_that_are_finished(tmp_path):
    assert progress_of(tmp_path / "none", "hardware").share_left == 1
    begun = progress_of(measured(tmp_path, done=3, plan={"a": 1}), "hardware")
    assert (begun.whole, begun.plan, begun.told(), begun.share_left) == (False, {"a": 1}, "3/4", 0.25)


def test_progress_of_a_whole_folder_drops_parts_left_behind(tmp_path):
    """A kill between the checksums, which are written last, and the end of the tidying."""
    sealed(measured(tmp_path, done=4), plan={"a": 1})
    found = progress_of(tmp_path, "hardware")
    assert (found.whole, found.plan, found.share_left) == (True, {"a": 1}, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SHA256SUMS", "hardware.csv", "metadata.json"]


def phase_of(folder: Path) -> Phase:
    files = {"hardware": 260, "hardware_short": 80}
    return Phase("hardware", folder, [Variant(str(PLANS / f"{name}.yaml"), files[name]) for name in files])


def test_look_at_a_changed_folder_fails_the_phase_alone(tmp_path):
    (sealed(tmp_path) / "hardware.csv").write_text("a\n2\n")
    phase = phase_of(tmp_path)
    phase.look(THERE)
    assert phase.state == FAILED
    assert "hardware.csv: missing, or not as SHA256SUMS has it. Delete" in phase.reason


def test_look_at_parts_of_a_plan_goes_on_with_that_plan(tmp_path):
    """Though the full plan would fit: half of the short one is there, and half of its working time is left."""
    plan = read_plan("hardware_short")
    phase = phase_of(measured(tmp_path, done=2, plan=plan))
    phase.look(THERE)
    assert phase.choices(20) == [Variant(str(PLANS / "hardware_short.yaml"), 20 + 60 / 2)]


def test_look_at_parts_of_an_unknown_plan_fails_it(tmp_path):
    phase = phase_of(measured(tmp_path, plan={"other": 1}))
    phase.look(THERE)
    assert phase.state == FAILED
    assert "holds parts of a plan that the campaign does not have" in phase.reason


def test_next_step_gives_what_is_left_to_unfinished_phases(monkeypatch, tmp_path):
    """All slack to the first; at the end, all that is left to one that was cut off; nothing where it is too little."""
    plan = full_plan(monkeypatch)
    phases = campaign.phases_of(plan, "H100-80GB", tmp_path)
    phase, variant, limit = campaign.next_step(phases, plan, 720)
    assert (phase.kind, variant.seconds, limit) == ("hardware", 260, 720 - 110 - 140 - 60)
    phase.state = CUT_OFF
    phase, variant, limit = campaign.next_step(phases, plan, 310)
    assert (phase.kind, limit) == ("memory", 310 - 140 - 60)
    for other in phases[1:]:
        other.state = FAILED
    phase, _, limit = campaign.next_step(phases, plan, 100)
    assert (phase.kind, limit) == ("hardware", 100)
    assert campaign.next_step(phases, plan, plan.start_seconds - 1) is None


@pytest.mark.parametrize(
    ("device", "gib", "name"),
    [
        ("NVIDIA H100 80GB HBM3", 79.1, "H100-80GB"),
        ("NVIDIA A100-SXM4-40GB", 39.5, "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", 79.2, "A100-80GB"),
        ("NVIDIA GeForce RTX 4090", 23.6, "RTX4090-24GB"),
    ],
)
def test_name_of_a_gpu_is_that_of_the_catalogue(device, gib, name):
    found = campaign.name_of({"device": device, "memory_bytes": round(gib * GIB)}, ROOT / "config/gpus.yaml")
    assert found == name


def test_name_of_a_gpu_unlike_all_is_a_mistake():
    machine = {"device": "NVIDIA H100 80GB HBM3", "memory_bytes": int(39.5 * GIB)}
    with pytest.raises(UserError, match=r"NVIDIA H100 80GB HBM3 with 39\.5 GiB is none of .*gpus\.yaml\. Add it"):
        campaign.name_of(machine, ROOT / "config/gpus.yaml")


def command(*arguments: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "prophet_moe.collect", "campaign", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_dry_run_with_a_name_needs_no_gpu_and_writes_nothing(tmp_path):
    measured(tmp_path / "hardware" / "H100-80GB", 2, plan=read_plan("hardware"))
    before = sorted(tmp_path.rglob("*"))
    done = command("--minutes", 12, "--dry-run", "--name", "H100-80GB", "--out", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:3] == [
        "H100-80GB: 660 of 720 s are planned",
        "hardware  about 140 s, goes on at part 2/4: config/measurements/hardware.yaml",
        "memory    about 320 s: config/measurements/memory.yaml",
    ]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--minutes", "0", "--dry-run"], "argument --minutes: got 0, expected a number above 0"),
        (["--minutes", "nan", "--dry-run"], "argument --minutes: got nan, expected a number above 0"),
        (["--minutes", "5", "--dry-run", "--name", "../x"], "--name: got '../x', expected letters, digits"),
        (["--minutes", "5", "--plan", "none.yaml"], "none.yaml: could not be used: No such file or directory"),
    ],
)
def test_mistakes_in_the_command_are_one_line(arguments, told):
    done = command(*arguments)
    assert done.returncode in (1, 2)
    assert told in done.stderr.splitlines()[-1]


def test_two_campaigns_in_one_folder_are_refused(monkeypatch, tmp_path):
    plan = full_plan(monkeypatch)
    plan.phases.clear()
    with campaign._only_one(tmp_path / campaign.FOLDER), pytest.raises(UserError, match="another campaign is running"):
        campaign.run(plan, "cpu", tmp_path, 60, {}, time.monotonic())
    assert campaign.run(plan, "cpu", tmp_path, 60, {}, time.monotonic())["whole"]


def test_states_of_a_new_campaign_are_waiting(monkeypatch, tmp_path):
    phases = campaign.phases_of(full_plan(monkeypatch), "cpu", tmp_path)
    assert [(phase.kind, phase.state) for phase in phases] == [(kind, WAITING) for kind in MEASUREMENTS]
