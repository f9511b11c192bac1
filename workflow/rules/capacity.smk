"""From model and GPU files to the record of every configuration."""

RECORD = "tables/{at}data/prophet_kv_extension_data.csv"
RECORD_JSON = "tables/{at}data/prophet_kv_extension_data.json"
EXTENDED_RECORD = "tables/{at}data/prophet_kv_extension_extended.csv"
CATALOG_TABLE = "tables/data/model_catalog.csv"
RULES_TABLE = "tables/data/resident_rules.csv"
SENSITIVITY_TABLE = "tables/data/headline_sensitivity.csv"

DATA = everywhere(RECORD) + everywhere(RECORD_JSON) + everywhere(EXTENDED_RECORD) + [CATALOG_TABLE]
HEADLINE = [RULES_TABLE, SENSITIVITY_TABLE]


rule sweep:
    """Compute every metric of every model, GPU and batch size under one scenario."""
    input:
        code=code("workflow/scripts/sweep.py"),
        gpus=GPU_FILE,
        models=[MODEL_FOLDER / f"{name}.yaml" for name in MODELS],
        variations=variations_for,
        measured=measured_reserves_for,
    output:
        grid="results/{scenario}/grid.parquet",
        prov=sidecars("results/{scenario}/grid.parquet"),
    log:
        "logs/{scenario}/sweep.log",
    benchmark:
        "benchmarks/{scenario}/sweep.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=sweep_parameters,
    shell:
        JOB


rule record:
    """Write the record: 24 columns as CSV and as JSON, and the extended CSV with components and evidence."""
    input:
        code=code("workflow/scripts/record.py"),
        grid=grid_of,
    output:
        csv=report(
            RECORD,
            caption="../report/record.rst",
            category="Data",
            labels={"item": "record", "place": "{at}"},
        ),
        json=RECORD_JSON,
        extended=EXTENDED_RECORD,
        prov=sidecars(RECORD, RECORD_JSON, EXTENDED_RECORD),
    log:
        "logs/{at}record.log",
    benchmark:
        "benchmarks/{at}record.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB


rule catalog:
    """Set the published constants of every model beside those of the report, with the status of each."""
    input:
        code=code("workflow/scripts/catalog.py"),
        models=[MODEL_FOLDER / f"{name}.yaml" for name in MODELS],
    output:
        table=report(
            CATALOG_TABLE,
            caption="../report/model_catalog.rst",
            category="Data",
            labels={"item": "model catalogue", "place": "all"},
        ),
        prov=sidecars(CATALOG_TABLE),
    log:
        "logs/catalog.log",
    benchmark:
        "benchmarks/catalog.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB


rule resident_rules:
    """Set rules for the resident experts beside each other."""
    input:
        code=code("workflow/scripts/resident_rules.py"),
        gpus=GPU_FILE,
        models=[MODEL_FOLDER / f"{name}.yaml" for name in MODELS],
        variations=variations_for_default,
        measured=measured_reserves_for_default,
    output:
        table=data_report(RULES_TABLE, "resident_rules"),
        prov=sidecars(RULES_TABLE),
    log:
        "logs/resident_rules.log",
    benchmark:
        "benchmarks/resident_rules.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=default_grid_parameters,
    shell:
        JOB


rule headline_sensitivity:
    """Tell the headline again with one assumption changed at a time."""
    input:
        code=code("workflow/scripts/headline_sensitivity.py"),
        gpus=GPU_FILE,
        models=[MODEL_FOLDER / f"{name}.yaml" for name in MODELS],
        variations=variations_for_default,
        measured=measured_reserves_for_default,
    output:
        table=data_report(SENSITIVITY_TABLE, "headline_sensitivity"),
        prov=sidecars(SENSITIVITY_TABLE),
    log:
        "logs/headline_sensitivity.log",
    benchmark:
        "benchmarks/headline_sensitivity.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=sensitivity_parameters,
    shell:
        JOB
