"""How many distinct experts does a batch need, and which law predicts it for a model without a trace?

REQUIRED INPUTS: traces, and counts of experts where the settings name some. OUTPUTS: tables/data/routing_law_fits.csv,
routing_law_residuals.csv, routing_law_transfer.csv, routing_variation.csv, tables/table5_routing_exponents.csv,
figures/routing_law.
"""

from studies.routing_law.study import STUDY as ROUTING_LAW

offer(ROUTING_LAW)
RECORDED_KINDS.extend(["law_fits", "law_residuals"])


def fitted(wildcards):
    """The traces that laws are fitted to."""
    return {"traces": HERE.titles(HERE.fitted)}


DRAWN["routing_law"] = Drawing(path_of("routing_law_residuals"), fitted)


rule fit_law:
    """Fit every law for u(B) to one trace, and judge each on held-out sequences."""
    input:
        code=code("workflow/studies/routing_law/fit_law.py"),
        files=trace_files,
    output:
        fits="results/traces/{trace}/law_fits.csv",
        residuals="results/traces/{trace}/law_residuals.csv",
        prov=sidecars("results/traces/{trace}/law_fits.csv", "results/traces/{trace}/law_residuals.csv"),
    log:
        "logs/fit_law/{trace}.log",
    benchmark:
        "benchmarks/fit_law/{trace}.tsv"
    # The longest chain of the essentials begins here.
    priority: 2
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=trace_parameters,
    shell:
        JOB


rule routing_law:
    """Put the fits to all traces into one table, and say how well traces of other models predict each."""
    input:
        code=code("workflow/studies/routing_law/compute.py"),
        of_fits=HERE.results_of(HERE.fitted, "law_fits"),
        of_residuals=HERE.results_of(HERE.fitted, "law_residuals"),
    output:
        fits=table("routing_law_fits"),
        residuals=table("routing_law_residuals"),
        transfer=table("routing_law_transfer"),
        prov=sidecars(*[path_of(f"routing_law_{name}") for name in ("fits", "residuals", "transfer")]),
    log:
        "logs/routing_law.log",
    benchmark:
        "benchmarks/routing_law.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB


rule routing_variation:
    """Pool the fits over traces for the models that have none of their own."""
    input:
        code=code("workflow/studies/routing_law/routing_variation.py"),
        fits=path_of("routing_law_fits"),
        models=MODEL_FILES,
    output:
        variation=table("routing_variation"),
        exponents=table("table5_routing_exponents"),
        prov=sidecars(path_of("routing_variation"), path_of("table5_routing_exponents")),
    log:
        "logs/routing_variation.log",
    benchmark:
        "benchmarks/routing_variation.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=as_json(plain(settings("routing_law"))),
    shell:
        JOB


rule counts_variation:
    """Fit the law for u(B) to the counts of the models that have some."""
    input:
        code=code("workflow/studies/routing_law/counts_variation.py"),
        counts=[TRACE_FOLDER / name / "counts.npz" for name in EXPERIMENT.counts],
        models=MODEL_FILES,
    output:
        variation=COUNTS_TABLE,
        prov=sidecars(COUNTS_TABLE),
    log:
        "logs/counts_variation.log",
    benchmark:
        "benchmarks/counts_variation.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB
