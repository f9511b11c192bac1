"""A page for every model: as JSON for the report page, and in LaTeX as a supplement of the paper.

REQUIRED INPUTS: the models, their catalogue and record; where a build makes them tables 11 and 18, the points of the
frontier and the ledger of claims; paper/supplement.tex. OUTPUTS: results/model_pages.json, results/model_pages/,
paper/generated/supplement.tex, paper/supplement.pdf.
"""

MODEL_PAGES = "results/model_pages.json"
MODEL_FIGURES = "results/model_pages"
SUPPLEMENT_TEX = "paper/generated/supplement.tex"

TARGETS.extend([MODEL_PAGES, SUPPLEMENT_TEX])
# It is compiled where the paper is.
PAPER.extend(["paper/supplement.pdf"] if PAPER else [])


def model_pages_parameters(wildcards):
    """The slowdown and the batch size of the reports that pages show first, and the looks of their figures."""
    style = SETTINGS.style.model_dump(mode="json", exclude={"figures"})
    claimed = EXPERIMENT.decode_step.claimed_slowdown
    return as_json({"claimed_slowdown": claimed, "batch_size": EXPERIMENT.reference.batch_size, "style": style})


rule model_pages:
    """Write the pages of all models and draw their figures in one job, which takes less time than a notebook each."""
    input:
        code=code("workflow/scripts/model_pages.py"),
        models=MODEL_FILES,
        catalog=CATALOG_TABLE,
        record=EXTENDED_RECORD.format(scenario_dir=""),
        gained=built("table11_context_gained"),
        points=built("frontier"),
        several=built("table18_several_gpus"),
        claims=built("claims"),
    output:
        json=MODEL_PAGES,
        tex=SUPPLEMENT_TEX,
        # A model has a figure where something can be drawn, which is known once its points are.
        figures=directory(MODEL_FIGURES),
        prov=sidecars(MODEL_PAGES, SUPPLEMENT_TEX),
    log:
        "logs/model_pages.log",
    benchmark:
        "benchmarks/model_pages.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=model_pages_parameters,
    shell:
        JOB


rule supplement:
    """Compile the supplement of the paper from its text and the generated pages of models."""
    input:
        code=code("workflow/scripts/supplement.py"),
        main="paper/supplement.tex",
        pages=SUPPLEMENT_TEX,
        figures=MODEL_FIGURES,
    output:
        pdf="paper/supplement.pdf",
        prov=sidecars("paper/supplement.pdf"),
    log:
        "logs/supplement.log",
    benchmark:
        "benchmarks/supplement.tsv"
    conda:
        "../../envs/paper.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB
