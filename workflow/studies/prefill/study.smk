"""How much longer does it take to prefill a prompt whose experts are streamed from host memory?

REQUIRED INPUTS: models, GPUs, the grid. OUTPUTS: tables/data/prefill.csv.
"""

from studies.prefill.study import STUDY as PREFILL

offer(PREFILL)


def prefill_parameters(wildcards):
    """Parameters of the times of prefill, in addition to the grid, model, GPU and profile files."""
    own = {"prefill": plain(settings("prefill")), "profiles": str(PROFILE_FOLDER)}
    own |= {"link": EXPERIMENT.decode_step.link}
    return as_json(own | {"scenario": plain(DEFAULT)})


rule prefill:
    """Compute how long a batch is prefilled with experts streamed from host memory, and with all resident."""
    input:
        code=code("workflow/studies/prefill/compute.py"),
        gpus=GPU_FILE,
        models=MODEL_FILES,
        grid=GRID,
        measured=PROFILE_FILES,
        links=LINK_FILE,
    output:
        table=table("prefill"),
        prov=sidecars(path_of("prefill")),
    log:
        "logs/prefill.log",
    benchmark:
        "benchmarks/prefill.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=prefill_parameters,
    shell:
        JOB
