"""What several tests need: the project's root, its catalogue and the records of both scenarios."""

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.record import record
from prophet_moe.catalog import GpuSpec, ModelSpec, load_gpus, load_models
from prophet_moe.routing.popularity_cv import PopularityCV, read_popularity_cvs
from prophet_moe.routing.published import BALANCING, PUBLISHED, read_balancing, read_published
from prophet_moe.routing.published_cv import popularity_cvs as published_cvs
from prophet_moe.settings.experiment import Experiment

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    """The default settings, whatever config/experiment.yaml holds just now."""
    return Experiment()


@pytest.fixture(scope="session")
def fresh_folder(tmp_path_factory) -> Callable[[], Path]:
    """Gives an empty folder, the same one each time: thousands of examples leave no folders behind."""
    folder = tmp_path_factory.mktemp("fresh")

    def emptied() -> Path:
        for inside in folder.iterdir():
            shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
        return folder

    return emptied


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run prophet-moe in this process, in the project or another folder: exit code, output and errors."""

    def run(*arguments: object, folder: Path = ROOT, given: str = "") -> tuple[int, str, str]:
        from prophet_moe.cli.main import main  # the environment of the peers has not all that commands need

        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["prophet-moe", *map(str, arguments)])
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        try:
            main()
            problem = ""
        except SystemExit as ended:
            problem = str(ended.code or "")
        printed = capsys.readouterr()
        return int(bool(problem)), printed.out, printed.err + problem

    return run


def pytest_terminal_summary(terminalreporter, config) -> None:
    """After a run of the fuzz tests alone, tell how many examples passed."""
    if config.getoption("markexpr") == "fuzz":
        from tests import fuzzing  # the environment of the peers has no Hypothesis

        terminalreporter.section("fuzz examples passed")
        for name, count in sorted(fuzzing.passed.items()):
            terminalreporter.write_line(f"{count:>9,}  {name}")
        terminalreporter.write_line(f"{fuzzing.passed.total():>9,}  in all")


def own_models(folder: Path) -> dict[str, ModelSpec]:
    """The artifact's own models, whose counts are known; what a user added to the catalogue is left out."""
    known = json.loads((ROOT / "tests/golden/counts.json").read_text(encoding="utf-8"))
    return {name: spec for name, spec in load_models(folder).items() if spec.reported and spec.published_name in known}


@pytest.fixture(scope="session")
def models() -> dict[str, ModelSpec]:
    """The catalogue's models, without those that a user added."""
    return own_models(ROOT / "config/models")


@pytest.fixture(scope="session")
def gpus(experiment: Experiment) -> dict[str, GpuSpec]:
    """GPUs that config/experiment.yaml selects, by name, as config/gpus.yaml describes them."""
    return load_gpus(ROOT / "config/gpus.yaml", experiment.gpus)


@pytest.fixture(scope="session")
def popularity_cvs() -> dict[str, PopularityCV]:
    """What the default scenario says of each model's routing: counts of published models."""
    folder = ROOT / "config/models"
    moe = {name: spec.architecture.moe for at in (folder, folder / "current") for name, spec in load_models(at).items()}
    shapes = {name: (part.experts, part.top_k) for name, part in moe.items() if part}
    return published_cvs(shapes, read_published(ROOT / PUBLISHED), read_balancing(ROOT / BALANCING))


@pytest.fixture(scope="session")
def fitted_cvs() -> dict[str, PopularityCV]:
    """What `variation: fitted` says of each model's routing: traces, as the committed table has it."""
    return read_popularity_cvs(ROOT / "tables/data/routing_variation.csv", "staggered")


@pytest.fixture(scope="session")
def grids(experiment, models, gpus, popularity_cvs) -> dict[str, pd.DataFrame]:
    """The capacity grid of each scenario."""
    return {
        name: capacity_grid(Configured(models, gpus, scenario, popularity_cvs), experiment.batch_sizes)
        for name, scenario in experiment.scenarios.items()
    }


@pytest.fixture(scope="session")
def records(grids) -> dict[str, pd.DataFrame]:
    """The record of each scenario."""
    return {name: record(grid) for name, grid in grids.items()}


def published(name: str) -> Path:
    """A file of others below PROPHET_DATA: a test skips where that is not set, and fails where the file lacks."""
    if not (folders := os.environ.get("PROPHET_DATA")):
        pytest.skip("PROPHET_DATA does not name the folder of datasets")
    paths = [Path(folder) / name for folder in folders.split(os.pathsep)]
    found = next((path for path in paths if path.exists()), None)
    assert found, f"{name}: not there, although PROPHET_DATA is set"
    return found
