"""How many GPUs does a model need, and what do expert slots change?

REQUIRED INPUTS: models of the grid and of today, GPUs, links, fitted operators and routing, resources/observations/;
the frontier, where it is built; resources/memory/, where a GPU was measured.
OUTPUTS: tables/table18_several_gpus.csv, tables/data/parallel_layouts.csv, tables/data/parallel_observed.csv,
figures/several_gpus.
"""

from prophet_moe.observed.context import catalogue_files
from prophet_moe.settings.experiment import check_names
from studies.several_gpus.study import STUDY as SEVERAL_GPUS

with exit_on_user_error():
    for key, known in (
        ("current_models", model_names(MODEL_FOLDER / "current")),
        ("nvlink_gb_per_s", load_gpus(GPU_FILE)),
        ("usd_per_gpu_hour", load_gpus(GPU_FILE)),
    ):
        named_here = list(getattr(settings("several_gpus"), key))
        file_of = Sources(config, MERGED_FILES).of
        check_names(f"studies.several_gpus.{key}", named_here, known, file_of)

offer(SEVERAL_GPUS)


def several_gpus_measured(wildcards):
    """What was measured of the memory of the GPUs of the study, where the scenario takes it."""
    wanted = settings("several_gpus").gpus if DEFAULT.runtime_reserve == "measured" else []
    return HERE.measurement_files("memory", wanted)


def several_gpus_parameters(wildcards):
    """Parameters of table 18, in addition to the model, GPU and fitted files."""
    own = {"several_gpus": plain(settings("several_gpus")), "scenario": plain(DEFAULT)}
    return as_json(own | {"memory": str(MEMORY_FOLDER), "link": EXPERIMENT.decode_step.link})


def several_gpus_shown(wildcards):
    """The table of layouts, and the models whose context the figure draws."""
    curves = drawn("several_gpus", "curve_models", EXPERIMENT.scenario)
    return {"layouts": path_of("parallel_layouts"), "curves": curves}


def several_gpus_layouts(wildcards):
    """What the figure shows besides the fewest GPUs."""
    return path_of("parallel_layouts")


DRAWN["several_gpus"] = Drawing(
    path_of("table18_several_gpus"), several_gpus_shown, several_gpus_layouts, of_scenario=True
)


rule several_gpus:
    """Find the fewest GPUs that hold every model, with all experts resident and with slots for some."""
    input:
        code=code("workflow/studies/several_gpus/compute.py"),
        gpus=GPU_FILE,
        models=MODEL_FILES,
        current=[MODEL_FOLDER / "current" / f"{name}.yaml" for name in settings("several_gpus").current_models],
        engine=engine_files(EXPERIMENT.scenario),
        variations=variations_of(DEFAULT),
        links=LINK_FILE,
        operators=OPERATOR_FILES,
        measured=several_gpus_measured,
        frontier=built("frontier"),
    output:
        table=table("table18_several_gpus"),
        layouts=table("parallel_layouts"),
        prov=sidecars(path_of("table18_several_gpus"), path_of("parallel_layouts")),
    log:
        "logs/several_gpus.log",
    benchmark:
        "benchmarks/several_gpus.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=several_gpus_parameters,
    shell:
        JOB


rule parallel_observed:
    """Hold what one GPU of several holds against what servers of others printed."""
    input:
        code=code("workflow/studies/several_gpus/parallel_observed.py"),
        memory="resources/observations/memory.csv",
        catalogue=catalogue_files(),
    output:
        table=table("parallel_observed"),
        prov=sidecars(path_of("parallel_observed")),
    log:
        "logs/parallel_observed.log",
    benchmark:
        "benchmarks/parallel_observed.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=no_parameters,
    shell:
        JOB
