"""The report page: claims, charts, plans, figures and tables in one HTML file that works offline.

REQUIRED INPUTS: the numbered tables, the figures, the records, results/headlines.txt, the pages of models; where they are
built the ledger of claims and the tables that are drawn as charts. OUTPUTS: results/report/index.html.
"""

from prophet_moe.present.page.assemble import PARTS

REPORT_PAGE = "results/report/index.html"


def page_outputs(outputs, extension=""):
    """Those outputs that a build makes, by their path, each with the folder of its scenario."""
    found = {f"{each.path.format(scenario_dir=at)}{extension}": (each, at) for each in outputs for at in folders(each)}
    return {path: of for path, of in found.items() if path in TARGETS}


def folders(output):
    """The folders of scenarios that an output lies in: that of the default one alone if it is not made for each."""
    return SCENARIO_DIRS.values() if output.by_scenario else [""]


PAGE_TABLES = page_outputs(each for each in TABLES.values() if each.name.startswith("table"))
PAGE_FIGURES = page_outputs(FIGURES.values(), ".png")


def page_shows_first():
    """The configuration of the frontier that is shown before a reader picks another: the first that its figure draws."""
    reference = EXPERIMENT.reference
    model = drawn("frontier", "models", EXPERIMENT.scenario)[0]
    return {"model": model, "gpu": reference.gpu, "batch_size": reference.batch_size}


def report_page_parameters(wildcards):
    """Captions, looks, scenarios in the order of their records, what is shown first, and whether a GPU was measured."""
    return as_json(
        {
            "tables": {path: caption(*of) for path, of in PAGE_TABLES.items()},
            "figures": {path: caption(*of) for path, of in PAGE_FIGURES.items()},
            "plans": caption(TABLES["plans"]),
            "scenarios": list(SCENARIO_DIRS),
            "claimed_slowdown": EXPERIMENT.decode_step.claimed_slowdown,
            "first": page_shows_first(),
            "measured": bool(PROFILE_FILES),
            "style": plain(SETTINGS.style),
            "benchmarks": "benchmarks",
        }
    )


rule report_page:
    """Write the page that reviewers open first; its timings are those of the jobs as they last ran."""
    input:
        code=code("workflow/scripts/report_page.py"),
        parts=[f"workflow/prophet_moe/present/page/{path.name}" for path in PARTS],
        studies=[f"workflow/studies/{study}/study.py" for study in STUDIES],
        records=for_every_scenario(RECORD),
        headlines=HEADLINES,
        tables=list(PAGE_TABLES),
        figures=list(PAGE_FIGURES),
        gained=built("table11_context_gained"),
        observed=built("table14_observed") + built("observed_rows"),
        frontier=built("frontier"),
        pays=built("table16_where_it_pays"),
        plans=built("plans"),
        claims=built("claims"),
        models=MODEL_PAGES,
    output:
        page=REPORT_PAGE,
        prov=sidecars(REPORT_PAGE),
    log:
        "logs/report_page.log",
    benchmark:
        "benchmarks/report_page.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=report_page_parameters,
    shell:
        JOB
