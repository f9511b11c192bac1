"""`variation: counts`: a model takes the popularity CV of its own counts, with their interval or none."""

import numpy as np
import pandas as pd
import pytest

from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.record import EXTENDED_COLUMNS, record, with_intervals, without_interval
from prophet_moe.errors import UserError
from prophet_moe.routing import store
from prophet_moe.routing.counted_law import own_popularity_cvs
from prophet_moe.routing.datasets import router_in
from prophet_moe.routing.popularity_cv import PopularityCV, popularity_cvs_of, read_popularity_cvs
from prophet_moe.routing.trace import Counts, Origin, Router
from prophet_moe.settings.experiment import Experiment, resolve
from prophet_moe.settings.scenario import Routing, Scenario
from studies.kv_extension.compute import with_intervals as with_ends

OLMOE = Router("OLMoE-1B-7B", 64, 8, tuple(range(16)))
ORIGIN = Origin("a test", "CC0-1.0")


def counts_folder(folder, router: Router = OLMOE, windows: int = 1):
    """A folder of counts in which some experts are a half more popular than others."""
    popular = np.where(np.arange(router.experts) % 2, 15, 5)
    counts = np.broadcast_to(popular, (windows, len(router.layers), router.experts)).astype(np.int64)
    store.write_counts(folder, Counts(router, counts, ORIGIN))
    return folder


def table(path, *rows: PopularityCV):
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_own_popularity_cvs_are_of_models_with_counts(tmp_path, models):
    routers = {"OLMoE-1B-7B": router_in("OLMoE-1B-7B", models["OLMoE-1B-7B"])}
    other = counts_folder(tmp_path / "other", Router("Another", 4, 1, (0,)))
    found = own_popularity_cvs([counts_folder(tmp_path / "mine"), other], routers)
    assert [(each.model, each.batching) for each in found] == [("OLMoE-1B-7B", "staggered")]
    assert found[0].value == pytest.approx(0.5, abs=0.1)


def test_own_popularity_cvs_of_another_router_are_refused(tmp_path):
    folder = counts_folder(tmp_path / "mine", Router("OLMoE-1B-7B", 64, 4, tuple(range(16))))
    with pytest.raises(UserError, match="with 64 experts, top-4, 16 MoE layers, expected 64 experts, top-8, 16 MoE"):
        own_popularity_cvs([folder], {"OLMoE-1B-7B": OLMOE})


def test_own_popularity_cvs_of_one_model_twice_are_refused(tmp_path):
    folders = [counts_folder(tmp_path / name) for name in ("a", "b")]
    with pytest.raises(UserError, match="is of OLMoE-1B-7B, as another folder is: counts of a"):
        own_popularity_cvs(folders, {"OLMoE-1B-7B": OLMOE})


def test_popularity_cvs_of_takes_the_last_table(tmp_path):
    pooled = [PopularityCV(name, "staggered", 0.5, 0.0, 1.5, "pooled from a") for name in "AB"]
    own = PopularityCV("B", "staggered", 0.25, 0.125, 0.375, "counts of b")
    paths = table(tmp_path / "1.csv", *pooled), table(tmp_path / "2.csv", own)
    assert popularity_cvs_of(paths, "staggered") == {"A": pooled[0], "B": own}
    assert popularity_cvs_of([], "staggered") == {}


def test_read_popularity_cvs_takes_no_interval_but_no_half(tmp_path):
    none = table(tmp_path / "1.csv", PopularityCV("A", "staggered", 0.5, np.nan, np.nan, "counts of a"))
    assert np.isnan(
        [read_popularity_cvs(none, "staggered")["A"].low, read_popularity_cvs(none, "staggered")["A"].high]
    ).all()
    half = table(tmp_path / "2.csv", PopularityCV("A", "staggered", 0.5, np.nan, 1.0, "counts of a"))
    with pytest.raises(UserError, match="line 2: low: got nothing, expected a number"):
        read_popularity_cvs(half, "staggered")


def test_a_model_without_interval_has_empty_ends(models, gpus):
    chosen = {name: models[name] for name in ("OLMoE-1B-7B", "Mixtral-8x7B")}
    scenario = Scenario(title="counts", routing=Routing(variation="counts"))
    popularity_cvs = {
        "OLMoE-1B-7B": PopularityCV("OLMoE-1B-7B", "staggered", 0.5, np.nan, np.nan, "counts of a"),
        "Mixtral-8x7B": PopularityCV("Mixtral-8x7B", "staggered", 0.5, 0.1, 1.0, "pooled from a"),
    }
    grid = capacity_grid(Configured(chosen, gpus, scenario, popularity_cvs), [16])
    rows = record(with_intervals(grid), EXTENDED_COLUMNS)
    ends = rows.set_index("model")[["unique_experts", "unique_experts_low", "unique_experts_high"]]
    assert ends.loc["OLMoE-1B-7B", "unique_experts"].notna().all()
    assert ends.loc["OLMoE-1B-7B", ["unique_experts_low", "unique_experts_high"]].isna().all(axis=None)
    assert (ends.loc["Mixtral-8x7B", "unique_experts_low"] < ends.loc["Mixtral-8x7B", "unique_experts_high"]).all()


def test_tables_of_a_model_without_interval_have_empty_ends():
    table, low = (
        pd.DataFrame({"model": ["A", "B"], "memory_floor_factor": values}) for values in ([2.0, 3.0], [2, 2.5])
    )
    shown = with_ends(table, [low], {"A"})
    assert shown["memory_floor_factor_low"].fillna(0).tolist() == [0, 2.5]
    assert shown["memory_floor_factor_high"].fillna(0).tolist() == [0, 3]
    assert with_ends(table, [low])["memory_floor_factor_low"].tolist() == [2, 2.5]


def test_without_interval_names_models_of_one_routing():
    grid = pd.DataFrame({"model": ["A", "B", "A", "B"], "popularity_cv": [0.5, 0.5, 0.5, 0.75]})
    assert without_interval(grid) == {"A"}


def complaint(content: dict, **known) -> str:
    with pytest.raises(UserError) as raised:
        resolve(content, [], ["A"], Experiment().gpus, {}, **known)
    return str(raised.value)


def test_variation_counts_without_counts_is_refused():
    scenarios = {"calibrated": {"title": "a", "routing": {"variation": "counts"}}}
    assert "counts: got [], expected folders: variation of scenario calibrated" in complaint({"scenarios": scenarios})


@pytest.mark.parametrize("variation", ["counts", "published"])
def test_variation_counts_of_ordered_batches_is_refused(variation):
    routing = {"variation": variation, "batching": "prefill"}
    told = complaint({"scenarios": {"calibrated": {"title": "a", "routing": routing}}, "counts": ["a"]})
    assert f"routing.batching: got prefill, expected staggered with variation {variation}" in told


def test_counts_among_the_traces_are_refused():
    told = complaint({"traces": ["a", "b"], "counts": []}, traces=lambda _: ["a"], counts=["b"])
    assert "traces[1]: 'b' holds counts, expected a trace. List it under counts instead." in told


def test_unknown_folders_of_counts_are_refused():
    assert "counts[0]: unknown name 'c'; expected one of b" in complaint({"counts": ["c"]}, counts=["b"])
