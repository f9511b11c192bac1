"""The page docs/reproduce.md: every output with the command that makes it, from what the studies declare."""

from collections.abc import Mapping

from prophet_moe.study import Figure, Study
from prophet_moe.tables import Table

STAGES = (
    (
        "A first look: a small build, a comparison, a few tests ([ARTIFACT.md](../ARTIFACT.md))",
        "make kick_the_tires",
        "a table of PASS and FAIL; `results/runs/kick_the_tires/`, `results/runs/kick_the_tires_small/`",
        "2",
    ),
    ("Everything", "make", "all below, both scenarios", "3 (150 s cold; 3 s where nothing changed)"),
    (
        "Figures 1-5 and tables 1-4, both scenarios",
        "snakemake --cores 8 essentials",
        "`figures/`, `tables/`, `tables/data/`, `paper/generated/`, and `reported/` below each",
        "1",
    ),
    (
        "The record, 384 x 24; with components, fit state and evidence",
        "snakemake --cores 8 tables/data/prophet_kv_extension_data.csv",
        "`tables/data/prophet_kv_extension_data.{csv,json}`, `tables/data/prophet_kv_extension_extended.csv`",
        "0.1",
    ),
    (
        "Published and reported constants",
        "snakemake --cores 8 tables/data/model_catalog.csv",
        "`tables/data/model_catalog.csv`",
        "0.1",
    ),
    (
        "Tables 1-4 with intervals",
        "snakemake --cores 8 tables/extended/table1_kv_extension_a100_80gb.csv",
        "`tables/extended/`",
        "0.6",
    ),
    (
        "Routing traces, collected afresh",
        "make trace",
        "`resources/traces/`",
        "60 on two cores, 2.5 GB of memory; says so first, resumes",
    ),
    (
        "A measurement of this machine's GPU ([measure.md](measure.md))",
        "make campaign MINUTES=12",
        "`resources/{hardware,memory,prefetch,overhead}/`",
        "12; resumes",
    ),
    ("LaTeX: tables, numbers, figures", "make", "`paper/generated/*.tex`", ""),
    ("Paper", "snakemake --cores 8 paper/main.pdf", "`paper/main.pdf`", "0.2 after tables and figures"),
    (
        "A page for every model ([model_pages.md](model_pages.md)), for the report page",
        "snakemake --cores 8 results/model_pages.json",
        "`results/model_pages.json`, `results/model_pages/`, `paper/generated/supplement.tex`",
        "0.1 after the tables",
    ),
    (
        "Supplement of the paper, the same pages",
        "snakemake --cores 8 paper/supplement.pdf",
        "`paper/supplement.pdf`",
        "0.1 after these",
    ),
    ("Notebooks, executed, and as pages", "make", "`results/notebooks/`", ""),
    ("Notebooks to play with", "make lab", "JupyterLab", ""),
    (
        "Notebooks from another machine",
        'make lab LAB_ARGS="--no-browser --port 8999"',
        "JupyterLab at that port",
        "",
    ),
    ("Comparison with the committed outputs", "make verify", "a table of PASS and FAIL", "0.1"),
    (
        "The page with everything ([report_page.md](report_page.md)), and Snakemake's own report",
        "make report",
        "`results/report/index.html`, `results/report.html`",
        "0.4 after `make`, which it runs first",
    ),
    (
        "Everything in one file ([archive.md](archive.md))",
        "make archive",
        "`results/archive/`, `results/crate/`",
        "0.2 after `make`, which it runs first",
    ),
    ("All tests", "make test", "", ""),
    (
        "Counts, KV bytes and the trace collector against Transformers",
        "make test-peers",
        "own environment (1.4 GB)",
        "4 with its installation",
    ),
    (
        "200,000 examples of hostile input; fewer with `FUZZ_FACTOR=5`",
        "make fuzz",
        "what passed, test by test",
        "20, one core",
    ),
    ("Speed and memory of the sweep, of imports and of descriptions", "make bench", "times beside plain ways", "5"),
)
"""What no single study makes: item, command, output and minutes."""


def reproduction_page(studies: Mapping[str, Study]) -> str:
    """Return the page in Markdown: the shared stages, then every study with its question, outputs and commands."""
    stages = "".join(f"| {item} | `{command}` | {output} | {time} |\n" for item, command, output, time in STAGES)
    return (
        "# Reproduce every output\n\n"
        "Made from `workflow/prophet_moe/present/reproduction.py` and the studies by `prophet-moe config write`.\n"
        "A test fails when they differ.\n\n"
        "Minutes are those of a cold build on two cores, after set-up. Set-up takes 80 s from a near package index,\n"
        "most of them to compile kernels. A job takes up to 0.8 GB of memory. The environment takes 1.2 GB of disk,\n"
        "the checkout with everything built 0.2 GB. No GPU is needed.\n\n"
        "The outputs of any scenario but the default one lie in a folder of its name: `figures/reported/`,\n"
        "`tables/reported/`, `paper/generated/reported/`. Beside every output lies `<output>.prov.json`: its inputs\n"
        "with their hashes, parameters, code and packages. [findings.md](findings.md) has what results rest on.\n\n"
        f"## Shared stages\n\n| item | command | output | minutes |\n|---|---|---|---|\n{stages}\n"
        "## Studies\n\n"
        "Each study answers one question. A command of the tables below makes one output and all that it needs, in at\n"
        "most the minutes of its study. Outputs that rest on a measured GPU are made where one was measured.\n"
        f"{''.join(_section(study) for study in studies.values())}"
    )


def _section(study: Study) -> str:
    """A study as a heading, its question, what it answers and a table of its outputs."""
    minutes = "" if study.minutes is None else f" ({study.minutes:g} min)"
    lines = ", ".join(f"[{line}](reports.md#{line.replace(':', '-')})" for line in study.reports)
    told = f" It answers {lines} of the reports." if lines else ""
    rows = "".join(_row(output) for output in (*study.figures, *study.tables))
    return (
        f"\n### {study.id}{minutes}\n\n{study.question}{told}\n"
        f"The [page of the study](../workflow/studies/{study.id}/README.md) has its captions and limits.\n\n"
        f"| output | command |\n|---|---|\n{rows}"
    )


def _row(output: Table | Figure) -> str:
    """An output of the default scenario with its command; a figure has two files."""
    path = output.path.format(scenario_dir="")
    made, shown = (f"{path}.pdf", f"{path}.{{pdf,png}}") if isinstance(output, Figure) else (path, path)
    return f"| `{shown}` | `snakemake --cores 8 {made}` |\n"
