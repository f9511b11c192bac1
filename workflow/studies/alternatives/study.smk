"""What do offloading, quantisation and Prophet cost in time, and what do they leave on the GPU?

REQUIRED INPUTS: what the reports print, models, GPUs, links, fitted operators, calibrated routing, the discrimination of a predictor.
OUTPUTS: tables/table17_alternatives.csv and that of every scenario, figures/alternatives.
"""

from prophet_moe.printed import PRINTED_FILE
from studies.alternatives.study import STUDY as ALTERNATIVES

ALTERNATIVE_ROUTINGS = sorted(Path("resources/routing").glob("*.json"))
if ALTERNATIVE_ROUTINGS:
    # The report's constants tell no times, which the figure shows.
    offer(ALTERNATIVES, figures=None if DEFAULT.architecture == "published" else [])


def alternatives_variations(wildcards):
    """The routing of a scenario."""
    return variations_of(scenario_of(wildcards))


def alternatives_reserves(wildcards):
    """The measured memory of the GPUs, where a scenario takes it."""
    return reserve_files(scenario_name(wildcards))


def alternatives_parameters(wildcards):
    """Parameters of table 17 of a scenario, in addition to files."""
    return as_json(
        {
            "settings": plain(settings("alternatives")),
            "scenario": plain(scenario_of(wildcards)),
            "context": EXPERIMENT.decode_step.context_tokens,
            "link": EXPERIMENT.decode_step.link,
            "copy_chunk_mb": EXPERIMENT.replay.copy_chunk_mb,
            "memory": str(MEMORY_FOLDER),
        }
    )


def alternatives_shown(wildcards):
    """The configurations that the figure shows."""
    own = settings("alternatives")
    gpu = EXPERIMENT.reference.gpu if EXPERIMENT.reference.gpu in own.gpus else own.gpus[0]
    return {"gpu": gpu, "models": drawn("alternatives", "models", EXPERIMENT.scenario)}


DRAWN["alternatives"] = Drawing(
    path_of("table17_alternatives").format(scenario_dir=""), alternatives_shown, of_scenario=True
)


rule alternatives:
    """Say what each way of serving keeps on the GPU, which context fits, and what a decode step takes."""
    input:
        code=with_strategies("workflow/studies/alternatives/compute.py"),
        printed=str(PRINTED_FILE),
        gpus=GPU_FILE,
        models=MODEL_FILES,
        links=LINK_FILE,
        operators=OPERATOR_FILES,
        calibrated=ALTERNATIVE_ROUTINGS,
        discrimination=HERE.result(settings("alternatives").predictor, "discrimination"),
        variations=alternatives_variations,
        measured=alternatives_reserves,
    output:
        table=table("table17_alternatives"),
        prov=sidecars(path_of("table17_alternatives")),
    log:
        "logs/alternatives/{scenario_dir}table.log",
    benchmark:
        "benchmarks/alternatives/{scenario_dir}table.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=alternatives_parameters,
    shell:
        JOB
