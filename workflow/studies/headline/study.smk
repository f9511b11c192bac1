"""How does the headline result change with the rule for resident experts and with other assumptions?

REQUIRED INPUTS: models, GPUs, the fitted routing. OUTPUTS: tables/data/resident_rules.csv, headline_sensitivity.csv.
"""

from studies.headline.study import STUDY as HEADLINE

offer(HEADLINE)


rule resident_rules:
    """Compare rules for the number of resident experts."""
    input:
        code=code("workflow/studies/headline/resident_rules.py"),
        gpus=GPU_FILE,
        models=MODEL_FILES,
        variations=variations_of(DEFAULT),
        measured=reserve_files(EXPERIMENT.scenario),
        engine=engine_files(EXPERIMENT.scenario),
    output:
        table=table("resident_rules"),
        prov=sidecars(path_of("resident_rules")),
    log:
        "logs/resident_rules.log",
    benchmark:
        "benchmarks/resident_rules.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=as_json(grid_parameters(EXPERIMENT.scenario)),
    shell:
        JOB


rule headline_sensitivity:
    """Compute the headline again with one assumption changed at a time."""
    input:
        code=code("workflow/studies/headline/headline_sensitivity.py"),
        gpus=GPU_FILE,
        models=MODEL_FILES,
        variations=variations_of(DEFAULT),
        measured=reserve_files(EXPERIMENT.scenario),
        engine=engine_files(EXPERIMENT.scenario),
    output:
        table=table("headline_sensitivity"),
        prov=sidecars(path_of("headline_sensitivity")),
    log:
        "logs/headline_sensitivity.log",
    benchmark:
        "benchmarks/headline_sensitivity.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=as_json(grid_parameters(EXPERIMENT.scenario) | {"sensitivity": plain(settings("headline"))}),
    shell:
        JOB
