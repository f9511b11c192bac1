"""Which GPUs were measured, where that lies, and what the rules about it depend on."""

HARDWARE_FOLDER = Path("resources/hardware")
MEMORY_FOLDER = Path("resources/memory")
TABLE7 = "tables/table7_decode_steps.csv"
MEMORY_TABLE = "tables/data/memory_validation.csv"

# A profile or a measurement of memory counts once its folder is complete.
MEASURED_GPUS = [name for name in EXPERIMENT.gpus if (HARDWARE_FOLDER / name / "SHA256SUMS").exists()]
MEASURED_MEMORY = sorted(path.parent for path in MEMORY_FOLDER.glob("*/SHA256SUMS"))

HARDWARE = [TABLE7] + ([MEMORY_TABLE] if MEASURED_MEMORY else [])

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
            f"note: no GPU's memory was measured, {MEMORY_TABLE} is left out; on a machine with one: "
            f"python -m prophet_moe.collect memory --out {MEMORY_FOLDER}/NAME"
        )
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
