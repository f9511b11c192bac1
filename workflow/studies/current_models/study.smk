"""Which models of today fit on one GPU, and with how long a context?

REQUIRED INPUTS: config/models/current/, GPUs, the fitted routing; resources/hardware/ and resources/memory/, where a
GPU was measured. OUTPUTS: tables/table13_current_models.csv, figures/current_models.
"""

from studies.current_models.study import STUDY as CURRENT_MODELS

CURRENT_FILES = sorted((MODEL_FOLDER / "current").glob("*.yaml"))
if CURRENT_FILES:
    offer(CURRENT_MODELS)


def current_models_measured(wildcards):
    """What was measured of the GPUs of the study, on the grid or not: times, and memory where a scenario takes it."""
    kinds = ["hardware", *["memory"] * (DEFAULT.runtime_reserve == "measured")]
    return [path for kind in kinds for path in HERE.measurement_files(kind, settings("current_models").gpus)]


def current_models_parameters(wildcards):
    """Parameters of table 13, in addition to the model, GPU and measured files."""
    own = {"current_models": plain(settings("current_models")), "scenario": plain(DEFAULT)}
    return as_json(
        own | {"profiles": str(PROFILE_FOLDER), "memory": str(MEMORY_FOLDER)} | {"link": EXPERIMENT.decode_step.link}
    )


rule current_models:
    """Say what fits of every model of today on one GPU, with all experts resident and with slots for some."""
    input:
        code=code("workflow/studies/current_models/compute.py"),
        gpus=GPU_FILE,
        models=CURRENT_FILES,
        variations=variations_of(DEFAULT),
        measured=current_models_measured,
        operators=OPERATOR_FILES,
        links=LINK_FILE,
        engine=engine_files(EXPERIMENT.scenario),
    output:
        table=table("table13_current_models"),
        prov=sidecars(path_of("table13_current_models")),
    log:
        "logs/current_models.log",
    benchmark:
        "benchmarks/current_models.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=current_models_parameters,
    shell:
        JOB
