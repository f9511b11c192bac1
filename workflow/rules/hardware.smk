"""Times of decode steps from hardware profiles; predicted memory and simulated prefetching beside measured."""


rule decode_steps:
    """Compute decode steps with all experts resident and with all to be fetched, on every GPU."""
    input:
        code=code("workflow/scripts/decode_steps.py"),
        gpus=GPU_FILE,
        models=[MODEL_FOLDER / f"{name}.yaml" for name in MODELS],
        variations=variations_for_default,
        grid=f"results/{EXPERIMENT.scenario}/grid.parquet",
        measured=[path for name in MEASURED_GPUS for path in sorted((HARDWARE_FOLDER / name).glob("*"))],
    output:
        table=data_report(TABLE7, "table7_decode_steps"),
        prov=sidecars(TABLE7),
    log:
        "logs/decode_steps.log",
    benchmark:
        "benchmarks/decode_steps.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=decode_step_parameters,
    shell:
        JOB


rule prefill:
    """Compute how long a batch is prefilled with experts streamed from host memory, and with all resident."""
    input:
        code=code("workflow/scripts/prefill.py"),
        gpus=GPU_FILE,
        models=[MODEL_FOLDER / f"{name}.yaml" for name in MODELS],
        grid=f"results/{EXPERIMENT.scenario}/grid.parquet",
        measured=[path for name in MEASURED_GPUS for path in sorted((HARDWARE_FOLDER / name).glob("*"))],
    output:
        table=data_report(PREFILL_TABLE, "prefill"),
        prov=sidecars(PREFILL_TABLE),
    log:
        "logs/prefill.log",
    benchmark:
        "benchmarks/prefill.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=prefill_parameters,
    shell:
        JOB


rule memory_validation:
    """Hold predicted memory against what was measured on a GPU."""
    input:
        code=code("workflow/scripts/memory_validation.py"),
        models=[MODEL_FOLDER / f"{name}.yaml" for name in MODELS],
        measured=[path for folder in MEASURED_MEMORY for path in sorted(folder.glob("*"))],
    output:
        table=data_report(MEMORY_TABLE, "memory_validation"),
        prov=sidecars(MEMORY_TABLE),
    log:
        "logs/memory_validation.log",
    benchmark:
        "benchmarks/memory_validation.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=as_json({"scenario": EXPERIMENT.scenarios[EXPERIMENT.scenario].model_dump(mode="json")}),
    shell:
        JOB


rule prefetch_validation:
    """Hold the simulated decode loop with prefetches against what GPUs were measured to take for it."""
    input:
        code=code("workflow/scripts/prefetch_validation.py"),
        plan=PREFETCH_PLAN_FILE,
        gpus=GPU_FILE,
        replayed=sorted({path for plan in PREFETCH_PLANS for path in replayed_files(plan)}),
        profiled=[path for name in MEASURED_GPUS for path in sorted((HARDWARE_FOLDER / name).glob("*"))],
        recorded=[path for name in MEASURED_PREFETCH for path in sorted((PREFETCH_FOLDER / name).glob("*"))],
    output:
        validation=data_report(PREFETCH_TABLE, "prefetch_validation"),
        summary=data_report(TABLE12, "table12_simulated_and_measured"),
        prov=sidecars(PREFETCH_TABLE, TABLE12),
    log:
        "logs/prefetch_validation.log",
    benchmark:
        "benchmarks/prefetch_validation.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=prefetch_parameters,
    shell:
        JOB
