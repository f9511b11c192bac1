"""What is here and what is missing, from small folders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prophet_moe.collect.plan import read_plan
from prophet_moe.files import write_json
from prophet_moe.inventory import Inventory, counted, known_counts, known_traces, located_all
from prophet_moe.routing.datasets import Dataset
from prophet_moe.routing.store import write_counts, write_trace
from prophet_moe.routing.trace import DECODE, PREFILL, Counts, Origin, Router
from tests.builders import uniform_trace
from tests.conftest import ROOT

PLAN = read_plan(ROOT / "config/collect.yaml")
SMALL = next(iter(PLAN.models))
"""A model of the plan."""


def dataset(phase: str = "decode", **more: Any) -> Dataset:
    """Make an entry as config/datasets.yaml holds it, of routing in `phase`; `more` replaces its keys."""
    told = dict.fromkeys(("project", "commit", "licence", "citation", "use"), "of this test")
    files = [{"path": "prompts.npz", "bytes": 1, "sha256": "0" * 64, "address": "https://example.org/prompts.npz"}]
    content = told | {"kind": "routing", "model": "m", "importer": "arrays", "phase": phase, "files": files} | more
    return Dataset.model_validate(content)


def record(folder: Path, name: str, lengths: list[int], phase: int = DECODE, piece: str = "") -> None:
    """Write a trace of sequences of such lengths; with a `piece`, all of them are of it."""
    trace = uniform_trace(lengths, 2, 8, 2, seed=len(name))
    trace.phase[:] = phase
    notes = {"sequences": [{"piece": piece}] * len(lengths)} if piece else {}
    write_trace(folder / name, replace(trace, origin=Origin("test", "", notes=notes)))


def touch(path: Path) -> None:
    """Write an empty file in a folder that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def here(tmp_path) -> Inventory:
    """Four recorded traces, and three datasets: one at hand, one known by its statistics, one unknown."""
    for name, lengths in (("long", [9] * 6), ("few", [9] * 3), ("one-text", [9] * 5), ("prompts", [9] * 6)):
        phase = PREFILL if name == "prompts" else DECODE
        record(tmp_path / "resources/traces", name, lengths, phase, "x" if name == "one-text" else "")
    touch(tmp_path / "resources/statistics/recorded/statistics.csv")
    touch(tmp_path / "resources/predictors/long/metadata.json")
    return Inventory(
        traces=("long", "few", "one-text", "prompts"),
        afresh=False,
        plan=PLAN,
        listed={"at-hand": dataset("prefill"), "recorded": dataset(), "unknown": dataset(without_address="ask them")},
        gpus=("A", "B"),
        python="their-python",
        resources=tmp_path / "resources",
        results=tmp_path / "results",
        elsewhere={"at-hand": [Path("/data/prompts.npz")], "recorded": None},
    )


@pytest.fixture
def afresh(tmp_path) -> Inventory:
    """A build that collects one model of the plan itself."""
    folders = {"resources": tmp_path / "resources", "results": tmp_path / "results"}
    return Inventory(traces=(SMALL,), afresh=True, plan=PLAN, listed={}, gpus=(), **folders)


def test_counted_says_one_sequence_and_several():
    assert (counted(0), counted(1), counted(2)) == ("0 sequences", "1 sequence", "2 sequences")


def test_known_traces_and_counts_are_told_apart(tmp_path):
    record(tmp_path, "b", [3, 3])
    record(tmp_path, "a", [3, 3])
    counts = Counts(Router("m", 4, 1, (0,)), np.ones((1, 1, 4), int), Origin("test", ""))
    write_counts(tmp_path / "counted", counts)
    assert known_traces(tmp_path) == ["a", "b"]
    assert known_counts(tmp_path) == ["counted"]


def test_located_all_finds_data_in_the_named_folders(tmp_path, monkeypatch):
    touch(tmp_path / "prompts.npz")
    monkeypatch.setenv("PROPHET_DATA", str(tmp_path))
    missing = dataset().model_copy(update={"files": [dataset().files[0].model_copy(update={"path": "no.npz"})]})
    found = located_all({"here": dataset(), "missing": missing})
    assert found == {"here": [tmp_path / "prompts.npz"], "missing": None}


def test_datasets_are_present_recorded_or_left_out(here):
    assert here.present == ["at-hand"]
    assert here.recorded == ["recorded"]
    assert here.datasets == ["at-hand", "recorded"]


def test_dataset_at_hand_and_recorded_counts_as_present(here):
    touch(here.resources / "statistics/at-hand/statistics.csv")
    assert here.recorded == ["recorded"]


def test_trace_lies_where_it_was_recorded_imported_or_collected(here, afresh):
    assert here.trace_folder("long") == here.resources / "traces/long"
    assert here.trace_folder("at-hand") == here.results / "datasets/at-hand"
    assert afresh.trace_folder(SMALL) == afresh.results / "traces" / SMALL
    names = ["trace.parquet", "metadata.json", "SHA256SUMS"]
    assert here.trace_files("long") == [here.resources / "traces/long" / name for name in names]


def test_results_of_recorded_data_are_committed_others_built(here):
    assert here.result("recorded", "law_fits") == here.resources / "statistics/recorded/law_fits.csv"
    built = [here.results / f"traces/{name}/law_fits.csv" for name in ("long", "at-hand")]
    assert here.results_of(["long", "at-hand"], "law_fits") == built


def test_metadata_is_that_of_recorded_traces_only(here, afresh):
    assert here.metadata("long")["sequences"] == 6
    assert here.metadata("at-hand") == {}
    assert afresh.metadata(SMALL) == {}
    write_json(here.resources / "traces/few/metadata.json", {"kind": "counts"})
    assert here.metadata("few") == {}


def test_titles_mark_traces_and_data_of_prefill(here, afresh):
    assert here.titles(["long", "prompts"]) == ["long", "prompts (prefill)"]
    assert here.titles(["at-hand", "recorded"]) == ["at-hand (prefill)", "recorded"]
    assert afresh.title(SMALL) == SMALL


def test_router_shape_is_that_of_the_trace_or_of_the_plan(here, afresh):
    assert here.router_shape("long") == (8, 2)
    arguments = PLAN.models[SMALL].config
    experts = arguments.get("num_experts", arguments.get("num_local_experts"))
    assert afresh.router_shape(SMALL) == (experts, arguments["num_experts_per_tok"])


def test_sequences_are_those_without_repetition(here):
    assert here.sequences == {"long": 6, "few": 3, "one-text": 5, "prompts": 6}


def test_sequences_of_older_metadata_leave_out_flagged_ones(here):
    notes = {"sequences": [{"has_repetition": True}, {}, {"has_repetition": False}]}
    write_json(here.resources / "traces/few/metadata.json", {"kind": "trace", "sequences": 3, "notes": notes})
    assert here.sequences["few"] == 2


def test_laws_are_fitted_to_enough_sequences_of_two_texts(here):
    assert here.fitted == ["long", "prompts", "at-hand", "recorded"]


def listing(here: Inventory, **unrepeated: int) -> Inventory:
    """The inventory where both datasets are listed with what they hold."""
    more = {"at-hand": dataset("prefill", unrepeated=unrepeated), "recorded": dataset(unrepeated=unrepeated)}
    return replace(here, listed=here.listed | more)


@pytest.mark.parametrize(
    ("sequences", "texts", "too_few"),
    [
        (3, 3, "3 sequences without repetition, expected at least 4"),
        (9, 1, "9 sequences of one text, expected at least 2 texts"),
    ],
)
def test_datasets_listed_with_too_little_are_not_fitted(here, sequences, texts, too_few):
    listed = listing(here, sequences=sequences, texts=texts)
    assert listed.fitted == ["long", "prompts"]
    assert listed.predicted == ["long"]
    assert listed.datasets == here.datasets, "their statistics are still computed"
    noted = [line.partition(". ")[0] for line in listed.notes() if "expected at least" in line]
    assert noted[2:] == [f"note: {name} holds {too_few}" for name in ("at-hand", "recorded")]


def test_sequences_of_datasets_are_those_that_are_listed(here):
    assert listing(here, sequences=7, texts=2).sequences == here.sequences | {"at-hand": 7, "recorded": 7}
    assert listing(here, sequences=7, texts=2).fitted == here.fitted


def test_predictors_of_collected_traces_are_built(here, afresh):
    assert here.predictor_folder("long") == here.resources / "predictors/long"
    assert afresh.predictor_folder(SMALL) == afresh.results / "predictors" / SMALL
    assert afresh.predicted == [SMALL]
    names = ["predictor.safetensors", "metadata.json", "SHA256SUMS"]
    assert here.predictor_files("long") == [here.resources / "predictors/long" / name for name in names]


def test_predicted_traces_have_a_predictor_or_recorded_scores(here):
    assert here.predicted == ["long", "recorded"]


def test_measured_gpus_are_those_whose_folder_is_complete(here):
    touch(here.resources / "hardware/A/SHA256SUMS")
    touch(here.resources / "hardware/B/profile.json")
    touch(here.resources / "hardware/other/SHA256SUMS")
    assert here.measured("hardware") == ["A"]
    assert here.measured("prefetch") == []


def test_measurement_files_are_those_of_named_gpus_in_order(here):
    for name in ("A/b.csv", "A/a.csv", "B/c.csv"):
        touch(here.resources / "hardware" / name)
    folder = here.resources / "hardware"
    assert here.measurement_files("hardware", ["B", "A"]) == [
        folder / "B/c.csv",
        folder / "A/a.csv",
        folder / "A/b.csv",
    ]


def test_measured_memory_holds_gpus_outside_the_grid(here):
    touch(here.resources / "memory/other/SHA256SUMS")
    assert here.measured_memory == ["other"]


def test_notes_tell_what_is_missing_and_what_follows(here):
    recorded, unknown, *rest = here.notes()
    assert recorded == (
        "note: dataset recorded is not available locally, so its recorded statistics are used. "
        "To get it: prophet-moe data fetch recorded"
    )
    assert unknown == "note: dataset unknown is not available locally, so it is left out. To get it: ask them"
    prefill = "holds no decode token, so its results are those of prefill and it is called"
    alone = "No law is fitted to it and it is not simulated; only tables/data/routing_statistics.csv has it"
    assert rest[:4] == [
        f"note: prompts {prefill} prompts (prefill)",
        f"note: at-hand {prefill} at-hand (prefill)",
        f"note: few holds 3 sequences without repetition, expected at least 4. {alone}",
        f"note: one-text holds 5 sequences of one text, expected at least 2 texts. {alone}",
    ]
    assert [line.split(". ")[0] for line in rest[4:]] == [
        "note: times on A, B come from datasheets",
        "note: no GPU's memory was measured, so the runtime reserve is assumed and memory is not validated",
    ]


def test_notes_are_none_where_nothing_is_missing(here):
    for gpu in here.gpus:
        touch(here.resources / f"hardware/{gpu}/SHA256SUMS")
    touch(here.resources / "memory/A/SHA256SUMS")
    assert replace(here, traces=("long",), listed={}).notes() == []


def test_training_minutes_are_told_once_of_untrained_models(afresh, tmp_path):
    machine = {"cpu": "a processor", "cpu_threads": 8}
    notes = {"training": {"seconds": 600, "machine": machine}}
    write_json(tmp_path / "recorded" / SMALL / "metadata.json", {"notes": notes})
    line = f"note: this build trains {SMALL}. This took 10 minutes on a processor with 8 threads"
    assert afresh.training_minutes(tmp_path / "recorded") == [line]
    assert afresh.training_minutes(tmp_path / "none") == []
    touch(afresh.results / "collect" / SMALL / "training.json")
    assert afresh.training_minutes(tmp_path / "recorded") == []


def test_training_minutes_are_none_of_a_trace_without_training(afresh, tmp_path):
    write_json(tmp_path / "recorded" / SMALL / "metadata.json", {"notes": {}})
    assert afresh.training_minutes(tmp_path / "recorded") == []


def test_training_minutes_are_none_of_recorded_traces(here):
    assert here.training_minutes(here.resources / "traces") == []


def test_traces_without_predictor_are_told_with_the_command(here):
    assert here.without_predictor() == [
        f"note: no predictor was trained on {name}, so tables/data/prediction.csv leaves it out. To train one: "
        f"their-python -m prophet_moe.collect predictor {folder} --out {here.resources}/predictors/{name}"
        for name, folder in (
            ("prompts", here.resources / "traces/prompts"),
            ("at-hand", here.results / "datasets/at-hand"),
        )
    ]
