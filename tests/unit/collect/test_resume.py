"""Whether a collection may start or go on in a folder."""

import json

import pytest

from prophet_moe.collect.resume import refuse_complete, start_or_resume
from prophet_moe.errors import UserError
from prophet_moe.routing.store import SUMS


def test_start_or_resume_in_an_empty_folder_writes_the_job(tmp_path):
    start_or_resume(tmp_path / "new" / "job.json", {"model": "A"}, "another job")
    assert json.loads((tmp_path / "new" / "job.json").read_text()) == {"model": "A"}


def test_start_or_resume_goes_on_with_the_same_job_only(tmp_path):
    path = tmp_path / "job.json"
    start_or_resume(path, {"model": "A", "seed": 1}, "another job")
    start_or_resume(path, {"seed": 1, "model": "A"}, "another job")
    with pytest.raises(UserError, match=f"{tmp_path}: holds parts of another job. Name another folder"):
        start_or_resume(path, {"model": "B", "seed": 1}, "another job")
    assert json.loads(path.read_text()) == {"model": "A", "seed": 1}


def test_refuse_complete_refuses_a_sealed_folder(tmp_path):
    refuse_complete(tmp_path, "trace")
    (tmp_path / SUMS).touch()
    with pytest.raises(UserError, match="holds a complete trace"):
        refuse_complete(tmp_path, "trace")
