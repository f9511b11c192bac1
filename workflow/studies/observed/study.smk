"""How far are predictions from what others measured?

REQUIRED INPUTS: resources/observations/, resources/operators/, resources/routing/, all models, GPUs and engines.
OUTPUTS: tables/table14_observed.csv, tables/data/observed_rows.csv, figures/observed.
"""

from prophet_moe.observed.context import catalogue_files
from studies.observed.study import STUDY as OBSERVED

offer(OBSERVED)


rule observed:
    """Predict every published observation, and sum up the errors by quantity, engine and GPU."""
    input:
        code=code("workflow/studies/observed/compute.py"),
        files=catalogue_files(),
    output:
        table=table("table14_observed"),
        rows=table("observed_rows"),
        prov=sidecars(path_of("table14_observed"), path_of("observed_rows")),
    log:
        "logs/observed.log",
    benchmark:
        "benchmarks/observed.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=no_parameters,
    shell:
        JOB
