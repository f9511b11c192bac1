"""Table 13: what fits where, held against the plain reference; and the figure of it."""

from dataclasses import replace

import pandas as pd
import pytest

from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.memory import device_bytes, model_memory
from prophet_moe.capacity.reference import evaluate
from prophet_moe.capacity.under_engine import NO_ENGINE, EngineChoice, memories_on
from prophet_moe.catalog import load_gpus, load_models
from prophet_moe.catalog.engine import load_engine
from prophet_moe.catalog.link import load_links
from prophet_moe.hardware.pace import read_paces
from prophet_moe.settings.scenario import CALIBRATED, REPORTED, Routing
from prophet_moe.settings.style import Style
from prophet_moe.tables import read_table
from studies.current_models.compute import AS_SHIPPED, current_models
from studies.current_models.figure import cells, counts, draw, findings, headline, tokens
from studies.current_models.study import CURRENT_MODELS, CurrentModelsSettings
from tests.conftest import ROOT
from tests.drawings import assert_no_texts_touch, assert_nothing_is_clipped, visible_texts

NAMES = ["gpt-oss-20b", "gpt-oss-120b", "Gemma-4-26B-A4B", "Qwen3-Next-80B-A3B", "DeepSeek-V3.2", "dots.llm1"]
SETTINGS = CurrentModelsSettings(gpus=["RTX4090-24GB", "A100-40GB", "H100-80GB", "DGX-Spark-128GB"])
MODELS = load_models(ROOT / "config/models/current", NAMES)
GPUS = load_gpus(ROOT / "config/gpus.yaml", SETTINGS.gpus)
PINNED = load_links(ROOT / "config/links.yaml")["pinned"]
SHIPPED = CALIBRATED.model_copy(update=AS_SHIPPED)


def made(known, settings=SETTINGS, scenario=CALIBRATED, engine=NO_ENGINE) -> pd.DataFrame:
    """Table 13 of some models and GPUs, with an assumed runtime reserve."""
    paces = read_paces(ROOT / "resources/hardware", ROOT / "resources/operators", GPUS, PINNED)
    return current_models(Configured(MODELS, GPUS, scenario, known, engine=engine), paces, settings)


@pytest.fixture(scope="module")
def table(popularity_cvs) -> pd.DataFrame:
    """Table 13 of the default scenario at a batch size of 1."""
    return made(popularity_cvs)


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    """Read table 13 as it is committed, one row per model and GPU."""
    return read_table(ROOT / CURRENT_MODELS.path, CURRENT_MODELS)


@pytest.mark.parametrize("batch", [1, 16])
def test_current_models_agree_with_the_plain_reference(popularity_cvs, batch):
    for row in made(popularity_cvs, SETTINGS.model_copy(update={"batch_size": batch})).itertuples():
        spec, device = MODELS[row.model], device_bytes(GPUS[row.gpu], SHIPPED)
        moe = spec.architecture.moe
        popularity_cv = popularity_cvs[row.model].value
        memory = replace(model_memory(spec, SHIPPED), popularity_cv=popularity_cv)
        found = evaluate(memory, device, batch, SHIPPED)
        assert row.baseline_max_context == found["baseline_max_context"]
        assert row.prophet_max_context == found["prophet_max_context"]
        assert row.resident_experts == found["resident_experts"]

        def left(slots, memory=memory, device=device, row=row):
            free = evaluate(memory, device, batch, SHIPPED, resident=slots)["prophet_free_bytes"]
            return free - batch * memory.cached_bytes(row.context)

        slots = 0 if pd.isna(row.slots) else row.slots
        assert slots == 0 or left(slots) >= 0
        assert slots == moe.experts or left(slots + 1) < 0


def test_slots_under_an_engine_fill_what_its_pool_leaves():
    """Table 13 names a context and slots from the same memory: with all slots, the pool holds that context."""
    engine = EngineChoice(load_engine(ROOT / "config/engines/vllm-0.10.yaml"))
    scenario = CALIBRATED.model_copy(update={"routing": Routing(variation=0), "engine": "vllm-0.10"})
    held = memories_on(MODELS, GPUS, scenario.model_copy(update=AS_SHIPPED), engine)
    table = made({}, scenario=scenario, engine=engine)
    for row in table.itertuples():
        whole = row.baseline_max_context >= row.context
        assert (row.slots == row.num_experts) == whole if pd.notna(row.slots) else not whole
        found = held[row.model, row.gpu]
        if found.budget.fits:
            assert row.baseline_native_context == pytest.approx(found.budget.max_context, abs=64)


def test_current_models_count_in_the_formats_that_they_ship(table):
    rows = table.drop_duplicates("model").set_index("model")
    assert rows.loc["gpt-oss-120b", "formats"] == "weights bf16, routed_experts mxfp4, KV cache bf16"
    assert rows.loc["gpt-oss-120b", "checkpoint_gb"] == pytest.approx(65.25, abs=0.01)
    assert list(rows.index) == list(rows.sort_values("checkpoint_gb").index)
    fit = table.set_index(["model", "gpu"])["fit_state"]
    assert fit["gpt-oss-120b", "H100-80GB"] == "both"
    assert fit["gpt-oss-120b", "A100-40GB"] == "prophet_only"
    assert fit["DeepSeek-V3.2", "RTX4090-24GB"] == "neither"


def test_current_models_name_what_is_left_out(table):
    left_out = table.set_index("model")["left_out"]
    assert set(left_out["Qwen3-Next-80B-A3B"]) == {"1 draft (multi-token prediction) layer"}
    assert set(left_out["gpt-oss-20b"]) == {""}


def test_slots_on_unified_memory_have_no_time(table):
    """Experts without a slot lie on a disk there, whose speed is not known."""
    rows = table[table["unified_memory"]].set_index("model")
    assert rows["slots_least_ms"].notna().equals(rows["fit_state"] == "both")
    others = table[~table["unified_memory"] & (table["slots"] >= table["top_k"])]
    assert (others["slots_least_ms"] >= others["all_resident_ms"]).all()
    assert (others.loc[others["slots"] == others["num_experts"], "other_experts_gb"] == 0).all()


def test_current_models_count_published_under_any_scenario():
    """A default scenario with the report's constants has none for these models."""
    found = made({}, scenario=REPORTED)
    assert set(found["model"]) == set(NAMES)
    assert found["baseline_max_context"].max() > 0


def test_tokens_are_short():
    shown = [tokens(number) for number in (860, 40960, 131072, 1048576, 10485760)]
    assert shown == ["860", "40k", "131k", "1.05M", "10.5M"]


def test_cells_say_context_share_or_nothing(table):
    found = cells(table)
    assert found["gpt-oss-120b", "H100-80GB"][::2] == ("resident", "131k")
    assert found["DeepSeek-V3.2", "RTX4090-24GB"][::2] == ("none", "")
    star = found["DeepSeek-V3.2", "A100-40GB"]
    assert star.state == "slots" and star.text.endswith("*")
    disk = found["Qwen3-Next-80B-A3B", "DGX-Spark-128GB"]
    assert disk.on_disk and disk.text == f"{disk.share:.0f} %"


def test_headline_counts_what_fits(committed):
    found, models = counts(committed), committed["model"].nunique()
    assert list(found.index[[0, -1]]) == ["RTX4090-24GB", "MI300X-192GB"]
    first = committed[committed["gpu"] == found.index[0]]
    assert headline(committed).startswith(
        f"All experts fit for {(first['fit_state'] == 'both').sum()} of {models} models on RTX4090-24GB"
    )
    assert "nan" not in findings(committed)


def test_texts_of_current_models_can_be_read(committed):
    figure = draw(committed, Style())
    assert_nothing_is_clipped({"current_models": figure})
    assert_no_texts_touch({"current_models": figure})
    assert min(text.get_fontsize() for text in visible_texts(figure)) >= 6
