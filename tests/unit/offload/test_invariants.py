"""What must hold of every run holds of long ones too; where it does not, one line says what to report."""

import itertools
import json

import numpy as np
import pytest

from prophet_moe.cli.main import main
from prophet_moe.errors import exit_on_user_error
from prophet_moe.offload import replay
from prophet_moe.offload.replay import RECORDED, Sample, run
from prophet_moe.offload.simulator import invariants
from prophet_moe.offload.simulator.invariants import Impossible
from prophet_moe.offload.simulator.predictions import Predictions, TrainingStatistics
from prophet_moe.offload.simulator.simulation import Hierarchy, Times
from prophet_moe.offload.strategies import strategies
from prophet_moe.routing.trace import DECODE, Origin, Router, Trace
from tests.conftest import ROOT, published

LAYERS, EXPERTS, TOP_K, TOKENS = 4, 32, 16, 1000
REQUESTS = 10**8


@pytest.fixture(scope="module")
def sample():
    """Uniform routing of one sequence."""
    chosen = np.random.default_rng(0).random((TOKENS, LAYERS, EXPERTS)).argsort(axis=2)[..., :TOP_K]
    number = np.arange(TOKENS, dtype=np.int32)
    phase, router = np.full(TOKENS, DECODE, np.uint8), Router("uniform", EXPERTS, TOP_K, tuple(range(LAYERS)))
    origin = Origin("this test", "Apache-2.0")
    trace = Trace(router, np.zeros_like(number), number, phase, chosen.astype(np.uint16), False, origin)
    return Sample(Predictions(TrainingStatistics(trace), trace), 0, RECORDED)


def times(unit: float) -> Times:
    """Thirds and sevenths of a unit: no sum of them is exact."""
    return Times(np.full(LAYERS, unit / 3), np.array([0.0, unit / 15]), (unit / 7,))


@pytest.mark.parametrize("unit", [1e-9, 1e-4, 1e3])
@pytest.mark.parametrize("strategy", ["all_resident", "on_demand"])
def test_invariants_hold_for_10_to_the_8_requests(sample, strategy, unit):
    repeats = -(-REQUESTS // (TOKENS * LAYERS * TOP_K)) if unit == 1e-4 else 20
    parts = itertools.chain.from_iterable(itertools.repeat(sample.parts(1), repeats))
    outcome = run(parts, sample.predictions.training, strategies()[strategy], Hierarchy((EXPERTS - 1,)), times(unit))
    assert outcome.requests.sum() == repeats * TOKENS * LAYERS * TOP_K
    assert outcome.seconds > 3 * unit * repeats


@pytest.mark.parametrize("unit", [1e-9, 1e-4, 1e3])
def test_a_wrong_time_is_caught_at_any_scale(sample, monkeypatch, unit):
    """A millionth more waiting than the clocks say."""
    arguments = (sample.parts(1), sample.predictions.training, strategies()["on_demand"], Hierarchy((16,)), times(unit))
    monkeypatch.setattr(replay, "check", lambda outcome, _: outcome)
    outcome = run(*arguments)
    invariants.check(outcome, times(unit))
    outcome.sums[0] *= 1 + 1e-6
    with pytest.raises(Impossible, match="stalls"):
        invariants.check(outcome, times(unit))


def test_a_broken_invariant_is_one_line_to_report(monkeypatch, capsys):
    def broken(*_):
        raise Impossible("simulation: stalls does not hold")

    monkeypatch.setattr(replay, "check", broken)
    command = ["prophet-moe", "sim", "run", "--trace", "small-6x8-top2", "--strategy", "on_demand", "--capacity", "4"]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        main()
    line = str(ended.value)
    assert line.startswith("error: simulation: stalls does not hold. This is a mistake in prophet-moe")
    assert " ".join(command) in line
    assert all(f"{name} " in line for name in ("Python", "prophet-moe", "numpy", "numba"))
    assert "\n" not in line
    assert capsys.readouterr().out == ""


def test_a_fault_is_told_without_an_installed_package(monkeypatch):
    monkeypatch.setattr("prophet_moe.errors.REPORTED", ("no-such-package",))
    with pytest.raises(SystemExit, match="no-such-package is not installed"), exit_on_user_error():
        raise Impossible("simulation: time does not hold")


@pytest.mark.parametrize("strategy", ["on_demand", "belady"])
def test_sim_run_replays_the_published_decode_trace(tmp_path, monkeypatch, capsys, strategy):
    source = published("routing/gptoss20b_decode.npz")
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "gpt-oss-20b"
    for command in (
        f"trace import arrays {source} --model gpt-oss-20b --out {folder}",
        f"sim run --trace {folder} --strategy {strategy} --capacity 16 --json",
    ):
        monkeypatch.setattr("sys.argv", ["prophet-moe", *command.split()])
        main()
    shown = capsys.readouterr().out
    assert json.loads(shown[shown.index("{") :])["routed_requests"] > 5e6
