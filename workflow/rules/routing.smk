"""From routing traces to what they say about routing."""

ROUTING_TABLE = "tables/data/routing_statistics.csv"


rule import_dataset:
    """Turn other people's routing data, where it is here, into a trace."""
    input:
        code=dataset_code,
        sources=dataset_files,
    output:
        trace="results/datasets/{dataset}/trace.parquet",
        metadata="results/datasets/{dataset}/metadata.json",
        sums="results/datasets/{dataset}/SHA256SUMS",
    log:
        "logs/datasets/{dataset}.log",
    benchmark:
        "benchmarks/datasets/{dataset}.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=dataset_parameters,
    shell:
        JOB


rule describe_trace:
    """Compute every statistic of one trace, with intervals and a shuffled control."""
    input:
        code=code("workflow/scripts/describe_trace.py"),
        files=trace_files,
    output:
        statistics="results/routing/{described}/statistics.csv",
        prov=sidecars("results/routing/{described}/statistics.csv"),
    log:
        "logs/routing/{described}.log",
    benchmark:
        "benchmarks/routing/{described}.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=described_parameters,
    shell:
        JOB


rule recorded_statistics:
    """Take what was recorded of a dataset that is not here."""
    input:
        recorded="resources/statistics/{recorded}/{kind}.csv",
    output:
        statistics="results/routing/{recorded}/{kind}.csv",
    log:
        "logs/routing/{recorded}/{kind}.log",
    benchmark:
        "benchmarks/routing/{recorded}/{kind}.tsv"
    conda:
        "../../envs/analysis.yaml"
    shell:
        "cp {input.recorded:q} {output.statistics:q} 2> {log:q}"


# No output that Snakemake would look for: it runs whenever it is asked for.
rule record_statistics:
    """Keep what was computed of the datasets that are here in resources/statistics/, for machines without them."""
    input:
        code=code("workflow/scripts/record_statistics.py"),
        statistics=[f"results/routing/{name}/{kind}.csv" for name in PRESENT for kind in STATISTICS],
    log:
        "logs/record_statistics.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=recorded_settings,
    shell:
        JOB


rule routing_statistics:
    """Put the statistics of all traces into one table."""
    input:
        code=code("workflow/scripts/routing_statistics.py"),
        statistics=of_traces((*TRACES, *DATASETS), "statistics"),
    output:
        table=report(
            ROUTING_TABLE,
            caption="../report/routing_statistics.rst",
            category="Data",
            labels={"item": "routing statistics", "place": "all"},
        ),
        prov=sidecars(ROUTING_TABLE),
    log:
        "logs/routing_statistics.log",
    benchmark:
        "benchmarks/routing_statistics.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB
