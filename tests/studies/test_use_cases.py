"""Table 19: the report's serving scenarios, each beside what its constants give, what is found, and the price."""

import numpy as np
import pandas as pd
import pytest

from prophet_moe.errors import UserError
from prophet_moe.settings.fields import LARGEST_RATIO
from prophet_moe.tables import read_table
from prophet_moe.validation import read_yaml, validate
from studies.frontier.study import FRONTIER
from studies.use_cases.compute import use_cases
from studies.use_cases.study import USE_CASES, UseCasesSettings
from tests.conftest import ROOT

SETTINGS = UseCasesSettings()
OVERLAYS = {"A chatbot": "chatbot", "B batch inference": "batch_inference", "C high throughput": "high_throughput"}
CONFIGURATION = {"model": "DeepSeek-MoE-16B", "gpu": "A100-80GB", "batch_size": 16}
GRID = pd.DataFrame(
    [
        CONFIGURATION
        | {
            "native_context": 4096,
            "resident_experts": 50,
            "baseline_fits": True,
            "baseline_max_context": 1000,
            "prophet_max_context": 1500,
            "kv_extension_factor": 1.5,
            "baseline_native_context": 1000,
            "prophet_native_context": 1500,
        }
    ]
)
FRONTIER_ROWS = pd.DataFrame(
    [
        CONFIGURATION
        | {
            "strategy": strategy,
            "trace": "made-up",
            "resident_experts": slots,
            "slowdown": slowdown,
            "slowdown_low": slowdown - 0.1,
            "slowdown_high": slowdown + 0.1,
            "max_context": context,
            "kv_extension_factor": context / 1000,
        }
        for strategy in ("on_demand", "prophet")
        for slots, slowdown, context in ((64, 1.0, 1000), (60, 1.1, 1100), (56, 1.5, 1300), (40, 3.0, 1800))
    ]
)


def reported() -> pd.DataFrame:
    """The record by the report's own constants, as it is committed."""
    return pd.read_csv(ROOT / "tables/reported/data/prophet_kv_extension_data.csv")


def test_use_cases_price_the_slots_of_the_rule():
    row = use_cases(GRID, None, FRONTIER_ROWS, SETTINGS, 1.2).iloc[0]
    assert (row["case"], row["priced_slots"], row["slowdown"]) == ("B batch inference", 56, 1.5)
    assert row["priced_extension"] == pytest.approx(1.3) and row["printed_extension"] == 1.5
    assert row["extension_within_claim"] == pytest.approx(1.1 + 0.2 * 0.1 / 0.4)


def test_use_cases_without_other_tables_leave_them_empty():
    row = use_cases(GRID, None, None, SETTINGS, 1.2).iloc[0]
    assert row["routing"] == "" and np.isnan(row["slowdown"]) and pd.isna(row["own_baseline_context"])


def test_use_cases_of_another_grid_are_none():
    assert use_cases(GRID.assign(gpu="V100-32GB"), None, None, SETTINGS, 1.2).empty


def test_baseline_that_does_not_fit_has_no_extension():
    none = GRID.assign(baseline_fits=False, baseline_max_context=0, baseline_native_context=0)
    row = use_cases(none, None, FRONTIER_ROWS, SETTINGS, 1.2).iloc[0]
    assert np.isnan(row["kv_extension_native"]) and np.isnan(row["extension_within_claim"])


@pytest.mark.parametrize("name", SETTINGS.cases)
def test_use_case_names_the_gpu_nearest_to_the_report(name):
    case, rows = SETTINGS.cases[name], reported()
    rows = rows[(rows["model"] == case.model) & (rows["batch_size"] == case.printed_batch)]
    apart = (rows["kv_extension_factor"] - case.printed_extension).abs()
    assert rows.loc[apart.idxmin(), "gpu"] == case.gpu
    assert ((rows["baseline_max_context"] / case.printed_baseline - 1).abs() > 0.1).all()


@pytest.mark.parametrize("name", SETTINGS.cases)
def test_use_case_has_an_overlay_of_its_own(name):
    case, overlay = SETTINGS.cases[name], read_yaml(ROOT / f"config/overlays/{OVERLAYS[name]}.yaml")
    assert overlay["name"] == OVERLAYS[name]
    assert (overlay["models"], overlay["gpus"]) == ([case.model], [case.gpu])
    assert overlay["reference"] == {"gpu": case.gpu, "batch_size": case.printed_batch}
    batches = overlay["batch_sizes"]
    assert min(batches) == case.batch_sizes[0] and max(batches) == case.batch_sizes[1]


def test_use_case_outside_its_batches_is_one_line():
    case = SETTINGS.cases["A chatbot"].model_dump() | {"printed_batch": 8}
    with pytest.raises(UserError, match="expected 1 to 4"):
        validate(UseCasesSettings, {"cases": {"A chatbot": case}}, "studies.use_cases", "Correct it.")


def test_use_cases_read_the_tables_that_a_build_makes():
    """The columns that the study reads are those that the frontier declares."""
    names = {column.name for column in FRONTIER.columns}
    assert set(FRONTIER_ROWS.columns) <= names
    committed = read_table(ROOT / FRONTIER.path, FRONTIER)
    assert committed["slowdown"].between(1, LARGEST_RATIO).any()
    assert len(USE_CASES.columns) == len({column.name for column in USE_CASES.columns})
