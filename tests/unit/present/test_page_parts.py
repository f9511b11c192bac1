"""The parts of the report page without a browser: sentences, claims, plans, timings, outputs and the page as text."""

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from prophet_moe.claims.verdict import VERDICTS
from prophet_moe.errors import UserError
from prophet_moe.present.page import answer, claims, models, outputs, plans, timings
from prophet_moe.present.page.assemble import embedded, prose
from prophet_moe.tables import Table, integer, text
from tests.unit.present.pages import MODEL_PAGE, claim

NUMBERS = {
    "BothRows": "3",
    "MedianExtensionFitting": "1.50",
    "GridRows": "8",
    "ProphetOnlyRows": "2",
    "ClaimedSlowdown": "1.2",
    "PriceProphetClaimedMedian": "1.10",
    "PriceOnDemandClaimedMedian": "1.05",
    "ObservedWeightsMedian": "0.5",
    "ObservedWeightsRows": "4",
    "ObservedHitRateMedian": "2",
    "ObservedHitRateRows": "6",
}


def test_answer_tells_memory_first_and_then_its_price():
    told = answer.lead(NUMBERS)
    assert told.startswith("By memory alone the context grows to 1.50x, the median of 3 configurations.")
    assert told.endswith("it grows to 1.10x with Prophet and 1.05x without any prediction.")


def test_answer_without_times_says_so():
    kept = {name: number for name, number in NUMBERS.items() if not name.startswith("Price")}
    assert answer.lead(kept).endswith(answer.NO_SENTENCE)
    assert [number.value for number in answer.key_numbers(kept, {})] == ["1.50x", "2 of 8"]


def test_errors_against_observations_have_their_units():
    told = answer.against_observations(NUMBERS)
    assert told.startswith("Median errors over 10 public observations: ")
    assert told.endswith("weights on a GPU 0.5 % and hit rate of an expert cache 2 points.")
    assert answer.against_observations({}) == ""


def test_claims_are_counted_by_verdict_in_order():
    found = [claim(number) for number in range(2 * len(VERDICTS) + 1)]
    counted = claims.counts(found, VERDICTS)
    assert [(each.verdict, each.count) for each in counted] == [
        (verdict, 3 if place == 0 else 2) for place, verdict in enumerate(VERDICTS)
    ]
    assert sum(each.share_pct for each in counted) == pytest.approx(100)
    assert claims.values(found, "model") == ["DBRX-132B", "Mixtral-8x7B", "OLMoE-1B-7B"]


def test_plans_are_grouped_and_ranges_are_told():
    row = {"model": "A", "gpu": "G", "batch_size": 1, "context": 4096, "slots_per_layer": 3, "experts": 8}
    row |= {"resident_share_pct": 37.5, "hit_rate": 0.5, "hit_rate_low": 0.5, "hit_rate_high": 0.5}
    row |= {"tokens_per_s": None, "tokens_per_s_low": None, "tokens_per_s_high": None}
    row |= {"slowdown": 2.0, "slowdown_low": 1.5, "slowdown_high": 3.0, "prefill_s": 1080.4, "works": False}
    row |= {"refusals": "too few", "advised_context": 4096, "advice": "Keep all.", "reasons": "one; two"}
    (view,) = plans.views(pd.DataFrame([row, row | {"context": 8192}]))
    assert view.reasons == ("one", "two")
    assert [cells[0] for cells in view.rows] == ["4,096", "8,192"]
    assert view.rows[0][1:] == ("3 of 8", "37.5 %", "0.5", "", "2 (1.5 to 3)", "1,080 s", "no: too few")


def test_timings_are_read_and_summed(tmp_path):
    (tmp_path / "figure").mkdir()
    (tmp_path / "sweep.tsv").write_text("s\th:m:s\tmax_rss\tcpu_time\n1.5\t0:00:01\t100.0\t1.0\n")
    (tmp_path / "figure/one.tsv").write_text("s\th:m:s\tmax_rss\tcpu_time\n0.5\t0:00:00\tNA\tNA\n")
    found = timings.read_timings(tmp_path)
    assert [(each.job, each.max_rss_mb) for each in found] == [("sweep", 100.0), ("figure/one", None)]
    assert timings.total(found) == ("all jobs", 2.0, 1.0, 100.0)


def test_a_file_that_is_no_benchmark_is_one_line(tmp_path):
    (tmp_path / "other.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(UserError, match=r"other\.tsv: is no benchmark of Snakemake"):
        timings.read_timings(tmp_path)


def test_model_pages_are_read_strictly(tmp_path):
    path = tmp_path / "pages.json"
    path.write_text(json.dumps([MODEL_PAGE]))
    assert models.read_model_pages(path)[0].sections[1].figure == "figures/frontier.png"
    path.write_text(json.dumps([MODEL_PAGE | {"colour": "red"}]))
    with pytest.raises(UserError, match="colour"):
        models.read_model_pages(path)


def test_figures_keep_every_pixel(tmp_path):
    picture = Image.linear_gradient("L").convert("RGB")
    picture.save(tmp_path / "figure.png")
    packed = outputs.embedded_image(tmp_path / "figure.png")
    assert (packed.width, packed.height) == picture.size
    assert packed.source.startswith("data:image/webp;base64,")


def test_tables_tell_numbers_and_long_texts(tmp_path):
    path, sidecar = tmp_path / "table3_counts.csv", tmp_path / "table3_counts.csv.prov.json"
    path.write_text(f"note,count\n{'long ' * 12},4\n")
    sidecar.write_text(json.dumps({"rule": "r", "config_hash": "h", "code": {"a": "1"}, "inputs": {"b": "2" * 64}}))
    declared = Table("table3_counts", (text("note", "Words."), integer("count", "rows", "How many.")))
    view = outputs.table_view(path, sidecar, declared, "A caption.")
    assert outputs.embedded_table(view) | {"rows": None} == {
        "columns": ["note", "count [rows]"],
        "numeric": [False, True],
        "wide": [True, False],
        "rows": None,
    }
    assert view.provenance.inputs == (("b", "2" * outputs.SHORT),)


def test_titles_come_from_names_and_scenarios():
    assert outputs.title(Path("tables/table3_by_count.csv")) == "Table 3: by count"
    assert outputs.title(Path("figures/reported/figure1_memory.png")) == "Figure 1: memory (reported)"
    assert outputs.title(Path("figures/where_it_pays.png")) == "Where it pays"


def test_outputs_are_in_reading_order():
    names = [
        "figures/reported/figure1_a.png",
        "figures/frontier.png",
        "figures/figure10_b.png",
        "figures/figure2_c.png",
    ]
    found = outputs.in_reading_order([Path(name) for name in names])
    assert [path.stem for path in found] == ["figure2_c", "figure10_b", "frontier", "figure1_a"]


def test_prose_keeps_code_and_drops_links():
    assert prose("Run `a < b`, see [docs](docs/x.md) & more.") == "Run <code>a &lt; b</code>, see docs &amp; more."


def test_embedded_json_cannot_end_its_element():
    assert "</script" not in embedded(["</script><b>"])
    assert json.loads(embedded(["</script>"])) == ["</script>"]
