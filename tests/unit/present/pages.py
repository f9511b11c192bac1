"""A report page of committed outputs, with a ledger and a model's page that are made up for tests."""

import csv
import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prophet_moe.captions import captions
from prophet_moe.claims.verdict import VERDICTS
from prophet_moe.files import write_text
from prophet_moe.settings.style import Style
from prophet_moe.study import load_studies
from studies.claims.study import CLAIMS as LEDGER
from tests.conftest import ROOT

CLAIMS = 60
"""Claims of the made-up ledger."""
FIGURES = ("figures/frontier.png", "figures/figure1_memory_breakdown.png")
TABLES = ("tables/table1_kv_extension_a100_80gb.csv", "tables/table16_where_it_pays.csv")


def claim(number: int) -> dict[str, str]:
    """A made-up claim: verdicts, documents and models take turns."""
    told = {column.name: "" for column in LEDGER.columns}
    models = ("Mixtral-8x7B", "DBRX-132B", "Mixtral-8x7B, OLMoE-1B-7B")
    return told | {
        "id": f"KV-{number:03d}",
        "family": "kv_extension",
        "document": f"00{number % 5}",
        "lines": f"00{number % 5}:{10 + number}",
        "says": f"The context of configuration {number} grows.",
        "unit": "x",
        "claimed": f"{1 + number / 10:.1f}",
        "reported": f"{1 + number / 10:.1f}",
        "calibrated": f"{1 + number / 40:.2f}",
        "verdict": list(VERDICTS)[number % len(VERDICTS)],
        "reason": f"Reason number {number} <of a test> & more.",
        "model": models[number % len(models)],
    }


def write_ledger(path: Path, claims: list[dict[str, str]]) -> Path:
    """Write claims as the ledger's CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(claims[0]))
        writer.writeheader()
        writer.writerows(claims)
    return path


MODEL_PAGE = {
    "model": "Mixtral-8x7B",
    "title": "Mixtral-8x7B",
    "summary": ["Two of eight experts of a layer are active."],
    "sections": [
        {
            "heading": "Bytes",
            "text": ["Most are experts."],
            "table": {"columns": ["part", "GB"], "rows": [["all", 93.4]]},
        },
        {"heading": "Frontier", "text": [], "figure": FIGURES[0]},
    ],
}


def made_page(folder: Path) -> Path:
    """Run the script of the rule `report_page` on a few outputs, from the project's root; return the page."""
    (folder / "benchmarks").mkdir()
    write_text(folder / "benchmarks" / "sweep.tsv", "s\tmax_rss\tcpu_time\n1.5\t100.2\t1.4\n")
    write_text(folder / "headlines.txt", "the lines that end a build\n")
    write_text(folder / "models.json", json.dumps([MODEL_PAGE]))
    ledger = write_ledger(folder / "claims.csv", [claim(number) for number in range(CLAIMS)])
    records = ["tables/data/prophet_kv_extension_data.csv", "tables/reported/data/prophet_kv_extension_data.csv"]
    files = {
        "records": records,
        "headlines": folder / "headlines.txt",
        "gained": ["tables/table11_context_gained.csv"],
        "observed": ["tables/table14_observed.csv", "tables/data/observed_rows.csv"],
        "frontier": ["tables/data/frontier.csv"],
        "pays": ["tables/table16_where_it_pays.csv"],
        "plans": ["tables/data/plans.csv"],
        "claims": [ledger],
        "models": folder / "models.json",
        "page": folder / "index.html",
    }
    paths = {
        name: [ROOT / each for each in given] if isinstance(given, list) else given for name, given in files.items()
    }
    script = runpy.run_path(str(ROOT / "workflow/scripts/report_page.py"))
    script["build"](SimpleNamespace(**paths), parameters(folder / "benchmarks"))
    return folder / "index.html"


def parameters(benchmarks: Path) -> dict[str, Any]:
    """The parameters of the rule, with captions as the READMEs of studies have them."""
    told = {path: text for study in load_studies() for path, text in captions(study).items()}
    by_name = {Path(path.format(scenario_dir="")).stem: text for path, text in told.items()}
    return {
        "tables": {path: by_name[Path(path).stem] for path in TABLES},
        "figures": {path: by_name[Path(path).stem] for path in FIGURES},
        "plans": by_name["plans"],
        "scenarios": ["calibrated", "reported"],
        "claimed_slowdown": 1.2,
        "first": {"model": "OLMoE-1B-7B", "gpu": "A100-80GB", "batch_size": 16},
        "measured": False,
        "style": Style().model_dump(mode="json"),
        "benchmarks": str(benchmarks),
    }
