"""Which GPUs were measured, where that lies, and what the rules about it depend on."""

from prophet_moe.offload.decode_loop.plan import PLAN_FILE as PREFETCH_PLAN_FILE
from prophet_moe.offload.decode_loop.plan import Plan as PrefetchPlan
from prophet_moe.offload.decode_loop.plan import check as check_prefetch_plan
from prophet_moe.collect.plan import read_as, read_recorded

HARDWARE_FOLDER = Path("resources/hardware")
MEMORY_FOLDER = Path("resources/memory")
PREFETCH_FOLDER = Path("resources/prefetch")
TABLE7 = "tables/table7_decode_steps.csv"
PREFILL_TABLE = "tables/data/prefill.csv"
TABLE12 = "tables/table12_simulated_and_measured.csv"
MEMORY_TABLE = "tables/data/memory_validation.csv"
PREFETCH_TABLE = "tables/data/prefetch_validation.csv"

# A profile or a measurement of memory counts once its folder is complete.
MEASURED_GPUS = [name for name in EXPERIMENT.gpus if (HARDWARE_FOLDER / name / "SHA256SUMS").exists()]
MEASURED_MEMORY = sorted(path.parent for path in MEMORY_FOLDER.glob("*/SHA256SUMS"))


def replayed_files(plan):
    """The traces and predictors that a plan of the decode loop with prefetches names."""
    workloads = plan.workloads.values()
    files = [Path(workload.trace) / name for workload in workloads for name in TRACE_FILES]
    files += [
        Path(workload.predictor) / name for workload in workloads if workload.predictor for name in PREDICTOR_FILES
    ]
    return sorted(set(files))


def gone(plan):
    """Those of them that are not there."""
    return [path for path in replayed_files(plan) if not path.exists()]


with exit_on_user_error():
    PREFETCH_PLAN = read_as(PrefetchPlan, PREFETCH_PLAN_FILE)
    check_prefetch_plan(PREFETCH_PLAN, f"{PREFETCH_PLAN_FILE}: prefetch")
    RECORDED_PREFETCH = {
        path.parent.name: read_recorded(PrefetchPlan, read_json(path), path)
        for path in (PREFETCH_FOLDER / name / "metadata.json" for name in EXPERIMENT.gpus)
        if path.with_name("SHA256SUMS").exists()
    }

MEASURED_PREFETCH = [name for name, plan in RECORDED_PREFETCH.items() if not gone(plan)]
PREFETCH_PLANS = [PREFETCH_PLAN, *(RECORDED_PREFETCH[name] for name in MEASURED_PREFETCH)]

HARDWARE = [TABLE7, PREFILL_TABLE]
HARDWARE += [] if gone(PREFETCH_PLAN) else [PREFETCH_TABLE, TABLE12]
HARDWARE += [MEMORY_TABLE] if MEASURED_MEMORY else []

config["measured_gpus"] = MEASURED_GPUS


def unmeasured():
    """One line about what no GPU was ever asked."""
    lines = []
    if names := [name for name in EXPERIMENT.gpus if name not in MEASURED_GPUS]:
        lines.append(
            f"note: times on {', '.join(names)} rest on datasheets; on a machine with the GPU: "
            f"python -m prophet_moe.collect hardware --out {HARDWARE_FOLDER}/NAME"
        )
    if not MEASURED_MEMORY:
        lines.append(
            f"note: no GPU's memory was measured, the runtime reserve is assumed and {MEMORY_TABLE} left out; with one: "
            f"python -m prophet_moe.collect memory --out {MEMORY_FOLDER}/NAME"
        )
    if names := [name for name in EXPERIMENT.gpus if name not in MEASURED_PREFETCH]:
        lines.append(
            f"note: no simulated time was held against {', '.join(names)}; on a machine with the GPU: "
            f"python -m prophet_moe.collect prefetch --out {PREFETCH_FOLDER}/NAME"
        )
    lines += [
        f"note: {gone(plan)[0]} is not there, what was measured on {name} is left out of {PREFETCH_TABLE}"
        for name, plan in RECORDED_PREFETCH.items()
        if gone(plan)
    ]
    if gone(PREFETCH_PLAN):
        lines.append(f"note: {gone(PREFETCH_PLAN)[0]} is not there, {PREFETCH_TABLE} and {TABLE12} are left out")
    return lines


def decode_step_parameters(wildcards):
    """What table 7 depends on besides the model, GPU and profile files."""
    return as_json(
        {
            "scenario": EXPERIMENT.scenarios[EXPERIMENT.scenario].model_dump(mode="json"),
            "gpus": EXPERIMENT.gpus,
            "batch_sizes": EXPERIMENT.batch_sizes,
            "decode_step": EXPERIMENT.decode_step.model_dump(),
            "profiles": str(HARDWARE_FOLDER),
        }
    )


def prefill_parameters(wildcards):
    """What the times of prefill depend on besides the grid, the model, GPU and profile files."""
    return as_json(
        {
            "scenario": EXPERIMENT.scenarios[EXPERIMENT.scenario].model_dump(mode="json"),
            "prefill": EXPERIMENT.prefill.model_dump(),
            "profiles": str(HARDWARE_FOLDER),
        }
    )


def prefetch_parameters(wildcards):
    """What the validation of simulated times depends on besides files."""
    return as_json({"gpus": EXPERIMENT.gpus, "profiles": str(HARDWARE_FOLDER), "recordings": str(PREFETCH_FOLDER)})
