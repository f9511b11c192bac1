"""Routing data of others: imported where it is here, and its results recorded for machines without it.

REQUIRED INPUTS: files of datasets, where they are here. OUTPUTS: results/datasets/; on request resources/statistics/.
"""


def router_of(model):
    """The router of a model of the project, selected by `models` or not, or of the list."""
    known = load_models(MODEL_FOLDER, [model]) if model in model_names(MODEL_FOLDER) else MODELS
    return router_named(model, known, KNOWN_DATA)


with exit_on_user_error():
    ROUTERS = {name: router_of(ROUTING_DATA[name].model) for name in HERE.present}


def dataset_files(wildcards):
    """The files of a dataset that is here."""
    return HERE.elsewhere[wildcards.trace]


def dataset_code(wildcards):
    """The code behind an imported dataset: the script, and the importer of the dataset's format."""
    importer = FORMATS[ROUTING_DATA[wildcards.trace].importer]
    modules = code(f"workflow/prophet_moe/routing/importers/{importer}.py")
    return list(dict.fromkeys([*code("workflow/scripts/import_dataset.py"), *modules]))


def dataset_parameters(wildcards):
    """What is listed about a dataset, and the router of its model."""
    dataset = ROUTING_DATA[wildcards.trace]
    router = asdict(ROUTERS[wildcards.trace])
    return as_json({"name": wildcards.trace, "dataset": plain(dataset), "router": router})


def settings_to_record(wildcards):
    """The settings that what is recorded of every dataset here depends on, by the name of their file."""
    of = {
        kind: {name: settings_of(name) for name in HERE.present if name in HERE.fitted}
        for kind, settings_of in RECORDED_SETTINGS.items()
    }
    return as_json(of)


def results_to_record(wildcards):
    """Every kind of result of every dataset that is here; of one that nothing is fitted to, its statistics."""
    kinds = {name: RECORDED_KINDS if name in HERE.fitted else ["statistics"] for name in HERE.present}
    return [HERE.result(name, kind) for name, of in kinds.items() for kind in of]


rule import_dataset:
    """Turn other people's routing data, where it is here, into a trace."""
    input:
        code=dataset_code,
        sources=dataset_files,
    output:
        trace="results/datasets/{trace}/trace.parquet",
        metadata="results/datasets/{trace}/metadata.json",
        sums="results/datasets/{trace}/SHA256SUMS",
    log:
        "logs/import_dataset/{trace}.log",
    benchmark:
        "benchmarks/import_dataset/{trace}.tsv"
    wildcard_constraints:
        trace="|".join(HERE.present) or "none",
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=dataset_parameters,
    shell:
        JOB


# No output that Snakemake would look for: it runs whenever it is asked for.
rule record_statistics:
    """Keep what was computed of the datasets that are here in resources/statistics/, for machines without them."""
    input:
        code=code("workflow/scripts/record_statistics.py"),
        statistics=results_to_record,
    log:
        "logs/record_statistics.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=settings_to_record,
    shell:
        JOB
