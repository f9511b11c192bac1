"""`sim run` with misses served as engines serve them, and `sim check` of recorded sessions."""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from prophet_moe.offload.demand import reference
from prophet_moe.offload.demand.lookups import asks_of, byte_cache
from prophet_moe.predict.context import split
from prophet_moe.routing.sequences import without_repetition
from prophet_moe.routing.store import read_trace
from tests.conftest import ROOT
from tests.unit.offload.test_demand_lookups import SESSION

SMALL = ("--trace", "small-6x8-top2", "--strategy", "on_demand", "--capacity", "4")


@pytest.fixture
def simulated(command) -> Callable[..., dict]:
    """The results of `sim run` on a small trace, as JSON."""

    def run(*options: str, base: tuple[str, ...] = SMALL) -> dict:
        code, told, errors = command("sim", "run", *base, *options, "--json")
        assert code == 0, errors
        return json.loads(told)

    return run


@pytest.mark.parametrize("scope", [(), ("--global",), ("--batch", "2")], ids=["layer", "global", "batch"])
def test_overheads_of_0_change_nothing(simulated, scope):
    plain = simulated("--deduplicated", *scope)
    on_demand = simulated("--miss-overhead-us", "0", *scope)
    for name in ("hit_rate", "step_ms_mean", "step_ms_p99", "tokens_per_second", "slowdown", "tokens", "requests"):
        assert on_demand[name] == pytest.approx(plain[name]), name
    assert on_demand["copies"] == plain["demand_copies"]


def test_overheads_lengthen_every_step_by_as_much(simulated):
    none, some = simulated("--miss-overhead-us", "0"), simulated("--step-overhead-us", "500")
    assert some["step_ms_mean"] == pytest.approx(none["step_ms_mean"] + 0.5)
    kind = simulated("--kind", "host_managed")
    assert kind["step_ms_mean"] > none["step_ms_mean"] + 6 * 0.275
    assert simulated("--kind", "host_managed", "--step-overhead-us", "0", "--miss-overhead-us", "0") == none
    assert kind["hit_rate"] == none["hit_rate"]


def test_fewer_misses_that_enter_hit_less(simulated):
    rates = [simulated("--inserts", str(most))["hit_rate"] for most in (2, 1, 0)]
    assert all(more >= fewer for more, fewer in pairwise(rates))
    assert rates[0] == simulated("--start", "training")["hit_rate"]
    second = simulated("--admit-after", "2")
    assert second["admitted"] < second["copies"]


def test_cpu_that_computes_misses_is_faster_the_faster_it_is(simulated):
    steps = [simulated("--cpu-gb-per-s", str(rate)) for rate in (10, 100, 1000)]
    assert all(slow["step_ms_mean"] > fast["step_ms_mean"] for slow, fast in pairwise(steps))
    assert all(slow["on_cpu"] <= fast["on_cpu"] for slow, fast in pairwise(steps))
    alone = simulated("--miss-overhead-us", "0")["step_ms_mean"]
    assert steps[0]["step_ms_mean"] <= alone
    assert steps[1]["step_ms_mean"] < alone
    background = simulated("--cpu-gb-per-s", "100", "--background")
    assert background["on_cpu"] == round(background["requests"] * (1 - background["hit_rate"]))


def test_hybrid_slows_link_and_cpu_that_read_the_same_memory(simulated):
    alone = simulated("--cpu-gb-per-s", "76")
    hybrid = simulated("--kind", "hybrid", "--cpu-gb-per-s", "76")
    assert hybrid["hit_rate"] == alone["hit_rate"]
    assert hybrid["on_cpu"] == alone["on_cpu"]
    assert alone["step_ms_mean"] < hybrid["step_ms_mean"] < alone["step_ms_mean"] / 0.87
    assert simulated("--kind", "hybrid", "--cpu-memory-gb-per-s", "100") == hybrid


def test_prompts_change_what_decode_finds_first_and_take_time(simulated):
    none, base = simulated("--start", "training"), (*SMALL[:-1], "6")
    through, stream, past = (simulated("--prefill", way) for way in ("through", "stream", "bypass"))
    assert "prefill_s" not in none
    assert past["hit_rate"] == none["hit_rate"]
    assert {each["requests"] for each in (through, stream, past)} == {none["requests"]}
    first = "hit_rate_of_first_16_steps"
    assert stream[first] < past[first] < through[first]
    assert abs(stream["hit_rate"] - past["hit_rate"]) < 0.02
    groups = stream["prefill_chunks"]
    assert stream["prefill_copies"] == groups * 6 * 8 >= past["prefill_copies"] > 0
    for each in (through, stream, past):
        parts = each["prefill_compute_s"], each["prefill_copy_s"]
        assert max(parts) <= each["prefill_s"] <= sum(parts) * (1 + 1e-9)
    on_cpu = simulated("--prefill", "cpu", "--cpu-gb-per-s", "80", "--cpu-tflops", "2")
    assert on_cpu["prefill_copies"] == 0
    slow = simulated("--prefill", "cpu", "--cpu-gb-per-s", "80", "--cpu-tflops", "1")
    assert slow["hit_rate"] == on_cpu["hit_rate"]
    assert slow["prefill_s"] > on_cpu["prefill_s"]
    more = simulated("--prefill", "stream", "--prefill-chunk", "16", base=base)
    assert more["prefill_chunks"] > groups
    assert more["prefill_s"] > stream["prefill_s"]
    assert simulated("--prefill", "through", "--batch", "2")["tokens"] == none["tokens"]


def test_prompts_take_and_leave_what_the_documentation_says(simulated):
    base = ("--trace", "small-6x64-top8", "--strategy", "on_demand", "--capacity", "32")
    text = (ROOT / "docs/simulation.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| `(\w+)` \| ([\d.]+) % \| ([\d.]+) % \| (\d+) \|$", re.MULTILINE)
    told = {way: [float(number) for number in numbers] for way, *numbers in row.findall(text)}
    assert tuple(told) == ("through", "through_by_id", "bypass", "stream", "stream_missing")
    for way, (first, every, milliseconds) in told.items():
        found = simulated("--prefill", way, base=base)
        rates = found["hit_rate_of_first_16_steps"], found["hit_rate"]
        assert [100 * rate for rate in rates] == pytest.approx([first, every], abs=0.051), way
        assert 1e3 * found["prefill_s_per_group"] == pytest.approx(milliseconds, abs=0.51), way
        assert (found["prefill_tokens"], found["prefill_chunks"]) == (64 * 140, 140)
        assert found["tokens"] == 192 * 140


def test_devices_add_their_slots_and_links(simulated):
    one, two = (simulated("--devices", count) for count in ("1", "2"))
    assert one == simulated("--start", "training")
    assert two["hit_rate"] > one["hit_rate"]
    assert two["step_ms_mean"] < one["step_ms_mean"]
    assert two["devices"] == 2


def test_drafts_yield_tokens_by_their_acceptance(simulated):
    base = (*SMALL[:-1], "8")
    alone = simulated("--draft", "0", "--acceptance", "0.7", base=base)
    drafted = simulated("--draft", "2", "--acceptance", "0.7", base=base)
    assert alone["tokens_per_step"] == 1
    assert drafted["tokens_per_step"] == pytest.approx(1 + 0.7 + 0.49, rel=0.03)
    assert 2 < drafted["experts_per_layer_step"] < 6
    assert drafted["tokens"] == alone["tokens"]


def test_storage_is_read_less_the_more_pages_there_are(simulated):
    reads = [simulated("--page-cache-mb", str(size))["storage_gb"] for size in (0, 6000, 14000)]
    assert all(more >= less for more, less in pairwise(reads))
    assert reads[0] > reads[-1]
    mapped = simulated("--page-cache-mb", "0", "--mapped-mb", "60")
    assert mapped["storage_gb"] == pytest.approx(reads[0] + mapped["tokens"] * 0.06, rel=1e-3)


def test_budget_below_what_a_step_needs_is_told(simulated):
    base = SMALL[:4]
    small = simulated("--budget-mb", "1", "--global", base=base)
    assert any("keeps" not in note and "less than one step needs" in note for note in small["notes"])
    assert small["hit_rate"] < 0.01
    large = simulated("--budget-mb", "100000", "--global", base=base)
    assert large["notes"] == [] or not any("less than one step" in note for note in large["notes"])
    assert large["hit_rate"] > 0.99


def test_results_are_told_in_words(command):
    code, told, errors = command("sim", "run", *SMALL, "--page-cache-mb", "50")
    assert code == 0, errors
    for text in ("on demand, 4 experts in each layer", "tokens/s", "read from storage"):
        assert text in told


@pytest.fixture
def unequal(command, tmp_path) -> Path:
    """A trace of one session whose second layer has experts three times as large."""
    random, lines = np.random.default_rng(3), ["turn,phase,step,layer,slot,expert,weight,residency,expert_bytes"]
    for step in range(120):
        for layer in range(2):
            chosen = np.sort(random.choice(8, 2, replace=False, p=np.arange(8, 0, -1) / 36))
            lines += [f"0,{int(step > 5)},{step},{layer},{slot},{each},0.5,0,1" for slot, each in enumerate(chosen)]
    sizes = [f"# layer={layer} expert_bytes={size} dense_bytes=1" for layer, size in enumerate((2_000_000, 6_000_000))]
    about = ["# route_trace v1", "# model=small arch=small n_layer=2 n_expert=8 n_expert_used=2", *sizes]
    (tmp_path / "route.csv").write_text("\n".join([*about, *lines, ""]))
    where = "--model", "unequal", "--experts", "8", "--out", str(tmp_path / "unequal")
    code, _, errors = command("trace", "import", "lines", str(tmp_path / "route.csv"), *where)
    assert code == 0, errors
    return tmp_path / "unequal"


@pytest.mark.parametrize("devices", [1, 2])
def test_experts_of_stated_bytes_are_those_of_plain_python(simulated, unequal, devices):
    base = ("--trace", str(unequal), "--strategy", "on_demand", "--model", "Mixtral-8x7B", "--budget-mb", "20")
    options = ("--global", "--start", "cold", "--devices", str(devices), "--order", "one_tenant_at_a_time")
    found = simulated(*options, base=base)
    assert found["expert_bytes"] == "stated by layer"
    tokens = split(without_repetition(read_trace(unequal)))[1].described()
    ids = tokens.experts.astype(np.int64) + 8 * np.arange(2)[:, None]
    cache = byte_cache(np.array([2_000_000, 6_000_000]), 8, 20_000_000, devices=devices)
    plain = reference.look_up(asks_of(ids.reshape(-1, 2)), cache, hits_first=True)
    assert found["hit_rate"] == pytest.approx(plain.hits.mean())
    assert found["copies"] == (~plain.hits).sum()
    seconds = simulated(*options, "--miss-overhead-us", "0", base=base)["step_ms_mean"] * len(ids) / 1e3
    layer = np.repeat(np.tile([2e6, 6e6], len(ids)), 2)
    assert seconds > layer[~plain.hits].sum() / devices / 32e9
    equal = simulated(*options, base=(*base[:-2], "--capacity", "5"))
    assert equal["hit_rate"] != found["hit_rate"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--inserts", "-1"), "--inserts: got -1"),
        (("--draft", "2"), "--draft: needs --acceptance"),
        (("--acceptance", "0.5"), "--draft: needs --acceptance"),
        (("--draft", "2", "--acceptance", "1.5"), "--acceptance: got 1.5"),
        (("--draft", "2", "--acceptance", "0.5", "--batch", "2"), "--draft: got batch 2"),
        (("--draft", "4", "--acceptance", "0.5"), "capacity: got 4, expected at least"),
        (("--devices", "0"), "--devices: got 0"),
        (("--background",), "--background: needs --cpu-gb-per-s"),
        (("--mapped-mb", "5"), "--mapped-mb: needs --page-cache-mb"),
        (("--page-cache-mb", "5", "--cpu-gb-per-s", "5"), "cannot be combined with --cpu-gb-per-s"),
        (("--inserts", "1", "--item-by-item"), "cannot be combined with --item-by-item"),
        (("--inserts", "1", "--inclusive"), "cannot be combined with --inclusive"),
        (("--miss-overhead-us", "nan"), "--miss-overhead-us: got nan"),
        (("--cpu-gb-per-s", "0"), "--cpu-gb-per-s: got 0"),
        (("--kind", "hybrid"), "--kind: hybrid needs --cpu-gb-per-s"),
        (("--cpu-memory-gb-per-s", "80"), "--cpu-memory-gb-per-s: needs --kind hybrid"),
        (
            ("--kind", "hybrid", "--cpu-gb-per-s", "5", "--cpu-memory-gb-per-s", "9"),
            "--cpu-gb-per-s: cannot be combined with --cpu-memory-gb-per-s",
        ),
        (("--prefill-chunk", "8"), "--prefill-chunk: needs --prefill"),
        (("--prefill", "through", "--prefill-chunk", "0"), "--prefill-chunk: got 0"),
        (("--prefill", "cpu", "--cpu-gb-per-s", "5"), "--cpu-tflops: needs --prefill cpu, and the other way round"),
        (("--cpu-tflops", "5"), "--cpu-tflops: needs --prefill cpu, and the other way round"),
        (("--prefill", "cpu", "--cpu-tflops", "5"), "--prefill: cpu needs --cpu-gb-per-s"),
        (("--prefill", "through", "--page-cache-mb", "5"), "cannot be combined with --page-cache-mb"),
    ],
    ids=" ".join,
)
def test_wrong_options_end_in_one_line(command, options, problem):
    code, told, errors = command("sim", "run", *SMALL, *options)
    assert (code, told) == (1, "")
    assert problem in errors
    assert len(errors.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--strategy", "prophet", "--capacity", "4", "--inserts", "1"), "--inserts: got strategy prophet"),
        (("--strategy", "on_demand", "--capacity", "4,4", "--inserts", "1"), "--inserts: needs one tier"),
        (("--strategy", "on_demand", "--iso-cache", "100", "--inserts", "1"), "cannot be combined with --iso-cache"),
        (("--strategy", "prophet", "--budget-mb", "100"), "--budget-mb: got strategy prophet"),
        (("--strategy", "on_demand", "--capacity", "2", "--prefill", "stream"), "stream: borrows 16 slots"),
        (("--strategy", "on_demand", "--budget-mb", "900", "--prefill", "stream"), "stream: borrows slots"),
    ],
)
def test_options_of_another_strategy_end_in_one_line(command, arguments, problem):
    code, _, errors = command("sim", "run", "--trace", "small-6x8-top2", *arguments)
    assert code == 1
    assert problem in errors
    assert len(errors.strip().splitlines()) == 1


def test_check_sets_a_session_beside_its_replays(command, tmp_path):
    path = tmp_path / "route.csv"
    path.write_text(SESSION)
    size = str(90 / 2**20)
    code, told, errors = command("sim", "check", str(path), "--cache-mib", size, "--json")
    assert code == 0, errors
    found = json.loads(told)
    assert list(found) == ["prefill", "token_by_token", "most_used", "cold"]
    assert found["prefill"]["differing"] == 1
    _, shown, _ = command("sim", "check", str(path), "--cache-mib", size)
    assert "0.6250 of 8 recorded" in shown
    code, _, errors = command("sim", "check", str(tmp_path / "none.csv"), "--cache-mib", "1")
    assert code == 1
    assert "none.csv" in errors
