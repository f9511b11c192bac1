"""Published routing as observations: the committed rows, and rows that cannot be."""

import csv

import numpy as np
import pytest

from prophet_moe.catalog import load_models
from prophet_moe.errors import UserError
from prophet_moe.routing.law_fit import Observed, fit_popularity_cv
from prophet_moe.routing.published import (
    BALANCING,
    BATCHES,
    PUBLISHED,
    PublishedRouting,
    read_balancing,
    read_published,
)
from tests.conftest import ROOT

ROWS = read_published(ROOT / PUBLISHED)
GRID = load_models(ROOT / "config/models")
CURRENT = load_models(ROOT / "config/models/current")


def written(path, **changes):
    """A file with the first committed row, some cells of it changed."""
    row = {name: getattr(ROWS[0], name) for name in PublishedRouting.model_fields} | changes
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(row)
        writer.writerow("" if cell is None else cell for cell in row.values())
    return path


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_effective_cv_is_the_fit_to_the_stated_u(row):
    observed = Observed(row.experts, row.top_k, BATCHES, np.array(row.unique), np.empty((0, 0)))
    assert row.effective_cv == pytest.approx(fit_popularity_cv(observed), abs=2e-3)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_models_that_rows_stand_for_have_their_shape(row):
    models = GRID | CURRENT
    assert row.stands_for in models
    architecture = models[row.stands_for].architecture
    assert (row.experts, row.top_k) == (architecture.moe.experts, architecture.moe.top_k)
    assert row.model_layers == len(architecture.moe_layers)


def test_golden_values_are_those_of_the_sources():
    """Numbers that were read off the counts of the sources by hand, or that other parts of the project state."""
    found = {(row.model, row.text, row.phase): row for row in ROWS}
    assert found["Mixtral-8x7B", "C4", "prefill"].unique[:3] == (3.493, 5.444, 7.157)
    assert found["Qwen3-30B-A3B", "C4", "prefill"].cv_layer_mean == 1.0272
    assert found["DeepSeek-R1", "all mixes, equal weight", "decode"].unique[-1] == 197.215
    assert found["gpt-oss-20b", "703 prompts", "decode"].unique[2] == 17.941
    assert found["Phi-3.5-MoE", "C4", "prefill"].unique == (3.697, 6.373, 9.798, 12.9, 14.693, 15.449)
    assert found["DeepSeek-MoE-16B-base", "MiniPile", "prefill"].effective_cv == pytest.approx(0.159, abs=5e-4)
    assert found["OLMoE-1B-7B-0924", "Alpaca", "prefill"].effective_cv == pytest.approx(0.506, abs=1e-3)


def test_rows_are_of_ten_models_and_two_domains():
    assert len({row.known_as for row in ROWS}) == 10
    assert {row.domain for row in ROWS} == {"web", "prompts"}
    assert {row.id for row in ROWS if not row.clean} == {f"RO-{number:03}" for number in range(29, 39)}


def test_balancing_is_told_of_every_model_of_the_grid():
    balancing = read_balancing(ROOT / BALANCING)
    assert set(balancing) == set(GRID)
    assert all(balancing[row.known_as] == row.balancing for row in ROWS if row.known_as in balancing)


def test_a_row_is_read_as_it_was_written(tmp_path):
    assert read_published(written(tmp_path / "one.csv")) == [ROWS[0]]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"source": ""}, "source: got ''"),
        ({"source": "a blog"}, "source: got 'a blog'"),
        ({"licence": ""}, "licence: got ''"),
        ({"experts": "many"}, "experts: got 'many'"),
        ({"top_k": 65}, "top_k: got 65, expected at most the 64 experts"),
        ({"cv_layer_max": 2.7}, r"cv_layer_max: got 2.7, expected at most sqrt\(E/k - 1\) = 2.646"),
        ({"effective_cv": 9.0}, r"effective_cv: got 9, expected at most"),
        ({"max_over_mean_max": 8.1}, "max_over_mean_max: got 8.1, expected at most E/k = 8"),
        ({"u_8": 43.0}, r"u_8: got 43, expected 26.085 \(u of a smaller batch\) to 42.009 \(even popularity\)"),
        ({"u_16": 30.0}, r"u_16: got 30, expected 40.945"),
        ({"u_64": "nan"}, "u_64: got nan"),
        ({"layers": 17}, "layers: got 17, expected at most the model's 16"),
        ({"layers": 8}, "clean: got True, but 8 of 16 layers were counted"),
        ({"clean": False}, "note: got '', expected why the row is not clean"),
        ({"clean": "yes"}, "clean: got 'yes'"),
        ({"balancing": "luck"}, "balancing: got 'luck'"),
        ({"tokens_per_layer": 0}, "tokens_per_layer: got 0"),
    ],
)
def test_impossible_rows_are_refused(tmp_path, changes, told):
    with pytest.raises(UserError, match=rf"one\.csv, line 2: {told}"):
        read_published(written(tmp_path / "one.csv", **changes))


def test_two_rows_of_one_name_are_refused(tmp_path):
    path = written(tmp_path / "two.csv")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(UserError, match=r"two\.csv, line 3: id: got 'RO-001', which an earlier row has"):
        read_published(path)


def test_a_missing_file_or_column_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_published(tmp_path / "none.csv")
    (tmp_path / "cut.csv").write_text("id,model\n")
    with pytest.raises(UserError, match="has 2 columns, expected 33"):
        read_published(tmp_path / "cut.csv")
