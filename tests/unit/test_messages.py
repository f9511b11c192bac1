"""What a build tells its user."""

import os
from pathlib import Path

from prophet_moe.files import write_text
from prophet_moe.messages import failures, other_models, summary


def test_other_models_is_silent_where_all_are_drawn():
    assert other_models("f", "s", ["a", "b"], ["a", "b"], ["a", "b", "c"]) == ""


def test_other_models_is_silent_of_models_left_out_on_purpose():
    assert other_models("f", "s", ["a", "b"], ["a"], ["a"]) == ""


def test_other_models_tells_what_a_scenario_lacks():
    told = other_models("frontier.models", "reported", ["a", "b"], ["a"], ["a", "b"])
    assert told == "note: frontier.models of scenario reported shows a: the scenario lacks b"


def test_other_models_tells_of_a_list_without_any():
    told = other_models("f", "s", ["a"], ["c", "d"], ["c", "d"])
    assert told == "note: f of scenario s shows c, d: the scenario has none of its models"


def test_failures_repeat_errors_and_point_to_tracebacks(tmp_path):
    write_text(tmp_path / "logs/a/told.log", "working\nerror: a.csv: no such file.\n")
    write_text(tmp_path / "logs/b.log", "Traceback (most recent call last)\n  File x\nKeyError: 'b'\n")
    write_text(tmp_path / "logs/fine.log", "nothing\n")
    logs = tmp_path / "logs"
    told = failures(logs, 0, Path("results/runs/mine"))
    assert told == ["error: a.csv: no such file.", f"see {Path('results/runs/mine') / logs / 'b.log'}: KeyError: 'b'"]


def test_failures_leave_out_logs_of_earlier_builds(tmp_path):
    write_text(tmp_path / "old.log", "error: old\n")
    os.utime(tmp_path / "old.log", (100, 100))
    assert failures(tmp_path, 101, Path()) == []


def test_summary_names_places_headlines_and_the_next_command(tmp_path):
    write_text(tmp_path / "headlines.txt", "Median 1.5 times\n")
    text = summary({"calibrated": "", "reported": "reported/"}, tmp_path / "headlines.txt", "", None)
    assert "Scenarios: calibrated at the top, reported in reported/." in text
    assert "Median 1.5 times" in text
    assert text.endswith("Compare with the committed outputs: snakemake --cores 2 verify")


def test_summary_of_a_named_run_tells_how_to_compare_it(tmp_path):
    text = summary({"calibrated": ""}, tmp_path / "none.txt", "mine", Path("results/runs/mine"))
    assert "All of them are below results/runs/mine/" in text
    assert text.endswith("To compare with them: prophet-moe compare mine")
