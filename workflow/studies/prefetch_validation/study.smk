"""Does a simulated decode loop with prefetching take as long as on a measured GPU?

REQUIRED INPUTS: config/measurements/prefetch.yaml, the traces and predictors that it names; resources/prefetch/, where
a GPU was measured. OUTPUTS: tables/data/prefetch_validation.csv, tables/table12_simulated_and_measured.csv.
"""

from prophet_moe.offload.decode_loop.plan import PLAN_FILE as PREFETCH_PLAN_FILE
from prophet_moe.offload.decode_loop.plan import Plan as PrefetchPlan
from prophet_moe.offload.decode_loop.plan import check as check_prefetch_plan
from prophet_moe.collect.plan import read_as
from studies.prefetch_validation.selection import missing, recorded_plans, replayed_files
from studies.prefetch_validation.selection import notes as notes_of_prefetching
from studies.prefetch_validation.study import STUDY as PREFETCH_VALIDATION

PREFETCH_FOLDER = Path("resources/prefetch")

with exit_on_user_error():
    PREFETCH_PLAN = read_as(PrefetchPlan, PREFETCH_PLAN_FILE)
    check_prefetch_plan(PREFETCH_PLAN, f"{PREFETCH_PLAN_FILE}: prefetch")
    RECORDED_PLANS = recorded_plans(PREFETCH_FOLDER, EXPERIMENT.gpus)

MEASURED_PREFETCH = [name for name, plan in RECORDED_PLANS.items() if not missing(plan)]
PREFETCH_PLANS = [PREFETCH_PLAN, *(RECORDED_PLANS[name] for name in MEASURED_PREFETCH)]

if not missing(PREFETCH_PLAN):
    offer(PREFETCH_VALIDATION)


def prefetch_notes():
    """What a user should know of measurements of the decode loop."""
    return notes_of_prefetching(PREFETCH_PLAN, RECORDED_PLANS, EXPERIMENT.gpus, PREFETCH_FOLDER)


NOTES.append(prefetch_notes)


rule prefetch_validation:
    """Compare the simulated decode loop with prefetching with measurements on GPUs."""
    input:
        code=code("workflow/studies/prefetch_validation/compute.py"),
        plan=PREFETCH_PLAN_FILE,
        gpus=GPU_FILE,
        replayed=sorted({path for plan in PREFETCH_PLANS for path in replayed_files(plan)}),
        profiled=PROFILE_FILES,
        recorded=HERE.measurement_files("prefetch", MEASURED_PREFETCH),
    output:
        validation=table("prefetch_validation"),
        summary=table("table12_simulated_and_measured"),
        prov=sidecars(path_of("prefetch_validation"), path_of("table12_simulated_and_measured")),
    log:
        "logs/prefetch_validation.log",
    benchmark:
        "benchmarks/prefetch_validation.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=as_json(
            {"gpus": EXPERIMENT.gpus, "profiles": str(PROFILE_FOLDER), "recordings": str(PREFETCH_FOLDER)}
        ),
    shell:
        JOB
