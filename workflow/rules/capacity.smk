"""From model and GPU files to the record of every configuration.

REQUIRED INPUTS: config/models/, config/gpus.yaml, the fitted routing; resources/memory/, where a GPU was measured.
OUTPUTS: results/<scenario>/grid.parquet, tables/data/prophet_kv_extension_data.{csv,json},
tables/data/prophet_kv_extension_extended.csv, for every scenario; tables/data/model_catalog.csv.
"""

RECORD = "tables/{scenario_dir}data/prophet_kv_extension_data.csv"
RECORD_JSON = "tables/{scenario_dir}data/prophet_kv_extension_data.json"
EXTENDED_RECORD = "tables/{scenario_dir}data/prophet_kv_extension_extended.csv"
CATALOG_TABLE = "tables/data/model_catalog.csv"
COUNTS_TABLE = "results/counts_variation.csv"
PUBLISHED_TABLE = "results/published_variation/{text}.csv"

RECORDS = [path for name in (RECORD, RECORD_JSON, EXTENDED_RECORD) for path in for_every_scenario(name)]
TARGETS.extend([*RECORDS, CATALOG_TABLE])
ESSENTIALS.extend([*RECORDS, CATALOG_TABLE])


def grid_parameters(scenario):
    """What the grid of a scenario depends on besides the model and GPU files."""
    return {
        "scenario": plain(EXPERIMENT.scenarios[scenario]),
        "gpus": EXPERIMENT.gpus,
        "batch_sizes": EXPERIMENT.batch_sizes,
        "memory": str(MEMORY_FOLDER),
    }


def variations_of(scenario):
    """What a scenario's routing is fitted to: traces, and counts where a model has its own; or published counts."""
    if scenario.fits_published:
        return [PUBLISHED_TABLE.format(text=scenario.routing.text)]
    return [path_of("routing_variation")] * scenario.fits_routing + [COUNTS_TABLE] * scenario.fits_counts


def reserve_files(scenario):
    """The files of all measurements that a scenario takes its runtime reserve from."""
    wanted = EXPERIMENT.scenarios[scenario].runtime_reserve == "measured"
    names = [name for name in HERE.measured_memory if wanted and name in EXPERIMENT.gpus]
    return HERE.measurement_files("memory", names)


def sweep_parameters(wildcards):
    """The parameters of the grid of a scenario."""
    return as_json(grid_parameters(wildcards.scenario))


def sweep_variations(wildcards):
    """The tables of fitted routing, where a scenario's routing is fitted."""
    return variations_of(EXPERIMENT.scenarios[wildcards.scenario])


def sweep_reserves(wildcards):
    """The measured memory of the grid's GPUs, where a scenario takes its runtime reserve from it."""
    return reserve_files(wildcards.scenario)


def sweep_engine(wildcards):
    """The engine of a scenario."""
    return engine_files(wildcards.scenario)


def record_grid(wildcards):
    """The grid of the scenario whose outputs lie in {scenario_dir}."""
    return f"results/{scenario_name(wildcards)}/grid.parquet"


rule sweep:
    """Compute every metric of every model, GPU and batch size under one scenario."""
    input:
        code=code("workflow/scripts/sweep.py"),
        gpus=GPU_FILE,
        models=MODEL_FILES,
        variations=sweep_variations,
        measured=sweep_reserves,
        engine=sweep_engine,
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
        grid=record_grid,
    output:
        csv=report(
            RECORD,
            caption="../report/record.rst",
            category="Data",
            labels={"item": "record", "scenario": "{scenario_dir}"},
        ),
        json=RECORD_JSON,
        extended=EXTENDED_RECORD,
        prov=sidecars(RECORD, RECORD_JSON, EXTENDED_RECORD),
    log:
        "logs/{scenario_dir}record.log",
    benchmark:
        "benchmarks/{scenario_dir}record.tsv"
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
        models=MODEL_FILES,
    output:
        table=report(
            CATALOG_TABLE,
            caption="../report/model_catalog.rst",
            category="Data",
            labels={"item": "model catalogue", "scenario": "all"},
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
