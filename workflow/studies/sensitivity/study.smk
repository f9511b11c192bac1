"""Which assumptions do memory and time depend on?

REQUIRED INPUTS: models, GPUs, links, fitted operators, the fitted routing. OUTPUTS: tables/table22_sensitivity.csv,
figures/sensitivity, figures/sensitivity_maps.
"""

from studies.sensitivity.study import STUDY as SENSITIVITY

offer(SENSITIVITY)

VARIED = drawn("sensitivity", "models", EXPERIMENT.scenario)


def sensitivity_parameters(wildcards):
    """The reference, what is varied around it, and the decode step whose time is estimated."""
    own = {
        "sensitivity": plain(settings("sensitivity")),
        "reference": plain(EXPERIMENT.reference),
        "decode_step": plain(EXPERIMENT.decode_step),
    }
    return as_json(grid_parameters(EXPERIMENT.scenario) | own)


rule sensitivity:
    """Vary the assumptions behind memory and time: one at a time, two at a time, and all together."""
    input:
        code=code("workflow/studies/sensitivity/compute.py"),
        gpus=GPU_FILE,
        models=[MODEL_FOLDER / f"{name}.yaml" for name in VARIED],
        variations=variations_of(DEFAULT),
        links=LINK_FILE,
        operators=OPERATOR_FILES,
    output:
        table=table("table22_sensitivity"),
        prov=sidecars(path_of("table22_sensitivity")),
    log:
        "logs/sensitivity.log",
    benchmark:
        "benchmarks/sensitivity.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=sensitivity_parameters,
    shell:
        JOB
