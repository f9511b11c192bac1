"""What do a chatbot, batch inference and high throughput gain, and at what price?

REQUIRED INPUTS: the capacity grid; the report's record and the frontier, where they are built.
OUTPUTS: tables/table19_use_cases.csv, where the grid has a model, GPU and batch of a case.
"""

from prophet_moe.settings.experiment import check_names
from studies.use_cases.study import STUDY as USE_CASES

with exit_on_user_error():
    found = list(settings("use_cases").cases.values())
    file_of = Sources(config, MERGED_FILES).of
    check_names(
        "studies.use_cases.cases",
        [case.model for case in found],
        model_names(MODEL_FOLDER),
        file_of,
    )
    check_names(
        "studies.use_cases.cases",
        [case.gpu for case in found],
        load_gpus(GPU_FILE),
        file_of,
    )

if any(
    case.model in MODELS
    and case.gpu in GPUS
    and any(case.batch_sizes[0] <= batch <= case.batch_sizes[1] for batch in EXPERIMENT.batch_sizes)
    for case in settings("use_cases").cases.values()
):
    offer(USE_CASES)


def use_cases_reported(wildcards):
    """The record by the report's own constants, where it is built."""
    if "reported" not in SCENARIO_DIRS:
        return []
    return RECORD.format(scenario_dir=SCENARIO_DIRS["reported"])


def use_cases_parameters(wildcards):
    """Parameters of table 19, in addition to the tables that it reads."""
    own = {"use_cases": plain(settings("use_cases"))}
    return as_json(own | {"claimed_slowdown": EXPERIMENT.decode_step.claimed_slowdown})


rule use_cases:
    """Set the report's serving scenarios beside what is found, each with its price."""
    input:
        code=code("workflow/studies/use_cases/compute.py"),
        grid=GRID,
        reported=use_cases_reported,
        frontier=built("frontier"),
    output:
        table=table("table19_use_cases"),
        prov=sidecars(path_of("table19_use_cases")),
    log:
        "logs/use_cases.log",
    benchmark:
        "benchmarks/use_cases.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=use_cases_parameters,
    shell:
        JOB
