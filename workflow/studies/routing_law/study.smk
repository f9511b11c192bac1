"""How many distinct experts does a batch need, and which law predicts it for a model without a trace?

REQUIRED INPUTS: traces, resources/observations/routing.csv, and counts of experts where the settings name some.
OUTPUTS: tables/data/routing_law_fits.csv, routing_law_residuals.csv, routing_law_transfer.csv, routing_variation.csv,
published_routing_transfer.csv, published_routing_pools.csv, tables/table5_routing_exponents.csv, figures/routing_law.
"""

from prophet_moe.routing.published import BALANCING, PUBLISHED
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
        published=variations_of(DEFAULT) if DEFAULT.fits_published else [],
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


rule published_routing:
    """Predict the routing of each published model from that of all others, and pool it by balancing and by text."""
    input:
        code=code("workflow/studies/routing_law/published_routing.py"),
        observations=PUBLISHED,
    output:
        transfer=table("published_routing_transfer"),
        pools=table("published_routing_pools"),
        prov=sidecars(*[path_of(f"published_routing_{name}") for name in ("transfer", "pools")]),
    log:
        "logs/published_routing.log",
    benchmark:
        "benchmarks/published_routing.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB


def published_text(wildcards):
    """The text that the published counts of a table of popularity CVs are of."""
    return as_json({"text": wildcards.text})


rule published_variation:
    """Say how much the popularity of the experts of every model varies, by published counts."""
    input:
        code=code("workflow/studies/routing_law/published_variation.py"),
        observations=PUBLISHED,
        balancing=BALANCING,
        models=[*MODEL_FILES, *sorted((MODEL_FOLDER / "current").glob("*.yaml"))],
    output:
        variation=PUBLISHED_TABLE,
        prov=sidecars(PUBLISHED_TABLE),
    log:
        "logs/published_variation/{text}.log",
    benchmark:
        "benchmarks/published_variation/{text}.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=published_text,
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
