"""Does the memory model predict what was measured on GPUs?

REQUIRED INPUTS: resources/memory/, where a GPU was measured. OUTPUTS: tables/data/memory_validation.csv.
"""

from studies.memory_validation.study import STUDY as MEMORY_VALIDATION

if HERE.measured_memory:
    offer(MEMORY_VALIDATION)


rule memory_validation:
    """Compare predicted memory with measurements on a GPU."""
    input:
        code=code("workflow/studies/memory_validation/compute.py"),
        models=MODEL_FILES,
        measured=HERE.measurement_files("memory", HERE.measured_memory),
    output:
        table=table("memory_validation"),
        prov=sidecars(path_of("memory_validation")),
    log:
        "logs/memory_validation.log",
    benchmark:
        "benchmarks/memory_validation.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=as_json({"scenario": plain(DEFAULT)}),
    shell:
        JOB
