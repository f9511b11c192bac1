"""On which hardware does a cache of experts keep a decode step within the claimed slowdown?

REQUIRED INPUTS: models, GPUs, links, buses, fitted operators, calibrated routing.
OUTPUTS: tables/table16_where_it_pays.csv, figures/where_it_pays.
"""

from itertools import chain

from studies.where_it_pays.study import STUDY as WHERE_IT_PAYS

PAYS_GPUS = list(dict.fromkeys([*settings("where_it_pays").gpus, *chain(*settings("where_it_pays").buses.values())]))
with exit_on_user_error():
    load_gpus(GPU_FILE, PAYS_GPUS)
    load_models(MODEL_FOLDER / "current", settings("where_it_pays").current)

PAYS_CURRENT = [MODEL_FOLDER / "current" / f"{name}.yaml" for name in settings("where_it_pays").current]
PAYS_ROUTINGS = sorted(Path("resources/routing").glob("*.json"))
if PAYS_ROUTINGS:
    offer(WHERE_IT_PAYS)


def where_it_pays_measured(wildcards):
    """What was measured of the memory of these GPUs, where the scenario takes it."""
    return HERE.measurement_files("memory", PAYS_GPUS) if DEFAULT.runtime_reserve == "measured" else []


def where_it_pays_parameters(wildcards):
    """Parameters of table 16, in addition to files."""
    return as_json(
        {
            "settings": plain(settings("where_it_pays")),
            "scenario": plain(DEFAULT),
            "step": plain(EXPERIMENT.decode_step),
            "copy_chunk_mb": EXPERIMENT.replay.copy_chunk_mb,
            "memory": str(MEMORY_FOLDER),
        }
    )


def where_it_pays_shown(wildcards):
    """The limit of slowdown that the figure shows."""
    return {"claimed_slowdown": EXPERIMENT.decode_step.claimed_slowdown}


DRAWN["where_it_pays"] = Drawing(path_of("table16_where_it_pays"), where_it_pays_shown, of_scenario=True)


rule where_it_pays:
    """Find the hit rate that each machine needs for each model and format, and the share of experts that gives it."""
    input:
        code=with_strategies("workflow/studies/where_it_pays/compute.py"),
        gpus=GPU_FILE,
        models=[*MODEL_FILES, *PAYS_CURRENT],
        links=LINK_FILE,
        buses=Path("config/buses.yaml"),
        operators=OPERATOR_FILES,
        calibrated=PAYS_ROUTINGS,
        measured=where_it_pays_measured,
    output:
        table=table("table16_where_it_pays"),
        prov=sidecars(path_of("table16_where_it_pays")),
    log:
        "logs/where_it_pays.log",
    benchmark:
        "benchmarks/where_it_pays.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=where_it_pays_parameters,
    shell:
        JOB
