"""How many experts does a batch need by each law?

REQUIRED INPUTS: the capacity grid. OUTPUTS: tables/data/needed_experts.csv, figures/needed_experts.
"""

from studies.needed_experts.study import STUDY as NEEDED_EXPERTS

offer(NEEDED_EXPERTS)


def needed_experts_parameters(wildcards):
    """The laws' own parameters, and the batch."""
    return as_json({"routing": plain(DEFAULT.routing), "batch_size": settings("needed_experts").batch_size})


rule needed_experts:
    """Compute how many experts of each model a batch needs, by each law."""
    input:
        code=code("workflow/studies/needed_experts/compute.py"),
        grid=GRID,
    output:
        table=table("needed_experts"),
        prov=sidecars(path_of("needed_experts")),
    log:
        "logs/needed_experts.log",
    benchmark:
        "benchmarks/needed_experts.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=needed_experts_parameters,
    shell:
        JOB
