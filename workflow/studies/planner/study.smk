"""Would a plan made beforehand have said what people measured afterwards?

REQUIRED INPUTS: models, GPUs, resources/routing/, resources/observations/, resources/operators/, the rows of the study
`observed`. OUTPUTS: tables/table15_planner.csv, tables/data/planner_hit_curves.csv, tables/data/plans.csv, figures/planner.
"""

from prophet_moe.routing.published import BALANCING, PUBLISHED
from studies.planner.study import STUDY as PLANNER

# The report's constants tell no time, which a plan needs.
PLANS_ARE_MADE = DEFAULT.architecture == "published"
offer(PLANNER, tables=None if PLANS_ARE_MADE else ["table15_planner", "planner_hit_curves"])


def planner_parameters(wildcards):
    """Parameters of the plans, in addition to the files of models, routings and observations."""
    own = {"planner": plain(settings("planner")), "scenario": plain(DEFAULT), "profiles": str(PROFILE_FOLDER)}
    own |= {"routings": "resources/routing", "operators": "resources/operators"}
    share = settings("prefill").compute_share
    return as_json(own | {"link": EXPERIMENT.decode_step.link, "compute_share": share})


rule planner:
    """Simulate hit curves for every shape of router, and set plans beside what people measured."""
    input:
        code=code("workflow/studies/planner/compute.py"),
        models=sorted(MODEL_FOLDER.glob("*.yaml")) + sorted((MODEL_FOLDER / "current").glob("*.yaml")),
        gpus=GPU_FILE,
        names=MODEL_NAMES,
        engines=sorted(ENGINE_FOLDER.glob("*.yaml")),
        routings=sorted(Path("resources/routing").glob("*.json")),
        hit_rates="resources/observations/hit_rates.csv",
        published="resources/observations/routing.csv",
        slots="resources/observations/slots.csv",
        splits="resources/observations/splits.csv",
        observed=path_of("observed_rows"),
        links=LINK_FILE,
        presets="config/offload.yaml",
        operators=OPERATOR_FILES,
    output:
        table=table("table15_planner"),
        curves=table("planner_hit_curves"),
        prov=sidecars(path_of("table15_planner"), path_of("planner_hit_curves")),
    log:
        "logs/planner.log",
    benchmark:
        "benchmarks/planner.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=planner_parameters,
    shell:
        JOB


def plans_parameters(wildcards):
    """The models, GPUs and batch sizes to plan, and what plans take from the configuration."""
    return as_json(
        {
            "models": list(MODELS),
            "gpus": list(GPUS),
            "batches": settings("planner").batches,
            "scenario_name": EXPERIMENT.scenario,
            "scenario": plain(DEFAULT),
            "link": EXPERIMENT.decode_step.link,
            "compute_share": settings("prefill").compute_share,
            "counts": EXPERIMENT.counts,
        }
    )


rule plans:
    """Plan every model of the grid on every GPU of it, as `prophet-moe plan` does."""
    input:
        code=code("workflow/studies/planner/plans.py"),
        models=MODEL_FILES,
        gpus=GPU_FILE,
        names=MODEL_NAMES,
        engines=sorted(ENGINE_FOLDER.glob("*.yaml")),
        routings=sorted(Path("resources/routing").glob("*.json")),
        curves=path_of("planner_hit_curves"),
        variations=variations_of(DEFAULT),
        published=[PUBLISHED, BALANCING],
        reserves=reserve_files(EXPERIMENT.scenario),
        measured=PROFILE_FILES,
        links=LINK_FILE,
        presets="config/offload.yaml",
        operators=OPERATOR_FILES,
    output:
        table=table("plans"),
        prov=sidecars(path_of("plans")),
    log:
        "logs/plans.log",
    benchmark:
        "benchmarks/plans.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=plans_parameters,
    shell:
        JOB
