"""How long does a decode step take if every expert is resident, and if every expert must be fetched?

REQUIRED INPUTS: models, GPUs, links, fitted operators, the grid. OUTPUTS: tables/table7_decode_steps.csv.
"""

from studies.decode_steps.study import STUDY as DECODE_STEPS

offer(DECODE_STEPS)


def decode_steps_parameters(wildcards):
    """Parameters of table 7, in addition to the model, GPU and profile files."""
    return as_json(
        {
            "scenario": plain(DEFAULT),
            "gpus": EXPERIMENT.gpus,
            "batch_sizes": EXPERIMENT.batch_sizes,
            "decode_step": plain(EXPERIMENT.decode_step),
            "profiles": str(PROFILE_FOLDER),
        }
    )


rule decode_steps:
    """Compute decode steps with all experts resident and with all to be fetched, on every GPU."""
    input:
        code=code("workflow/studies/decode_steps/compute.py"),
        gpus=GPU_FILE,
        models=MODEL_FILES,
        variations=variations_of(DEFAULT),
        grid=GRID,
        measured=PROFILE_FILES,
        links=LINK_FILE,
        operators=OPERATOR_FILES,
    output:
        table=table("table7_decode_steps"),
        prov=sidecars(path_of("table7_decode_steps")),
    log:
        "logs/decode_steps.log",
    benchmark:
        "benchmarks/decode_steps.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=decode_steps_parameters,
    shell:
        JOB
