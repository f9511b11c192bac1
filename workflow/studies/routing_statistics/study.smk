"""Which experts do tokens choose, and how much do consecutive tokens, layers and batches share?

REQUIRED INPUTS: traces. OUTPUTS: tables/data/routing_statistics.csv, figures/routing_statistics.
"""

from studies.routing_statistics.study import STUDY as ROUTING_STATISTICS

offer(ROUTING_STATISTICS)
RECORDED_KINDS.append("statistics")


def described(wildcards):
    """All traces that are described."""
    return {"traces": HERE.titles([*HERE.traces, *HERE.datasets])}


DRAWN["routing_statistics"] = Drawing(path_of("routing_statistics"), described)


rule describe_trace:
    """Compute every statistic of one trace, with intervals and a shuffled control."""
    input:
        code=code("workflow/studies/routing_statistics/describe_trace.py"),
        files=trace_files,
    output:
        statistics="results/traces/{trace}/statistics.csv",
        prov=sidecars("results/traces/{trace}/statistics.csv"),
    log:
        "logs/describe_trace/{trace}.log",
    benchmark:
        "benchmarks/describe_trace/{trace}.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=trace_parameters,
    shell:
        JOB


rule routing_statistics:
    """Put the statistics of all traces into one table."""
    input:
        code=code("workflow/studies/routing_statistics/compute.py"),
        statistics=HERE.results_of([*HERE.traces, *HERE.datasets], "statistics"),
    output:
        table=table("routing_statistics"),
        prov=sidecars(path_of("routing_statistics")),
    log:
        "logs/routing_statistics.log",
    benchmark:
        "benchmarks/routing_statistics.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB
