"""What is the memory made of, and how does it change with batch size, context and GPU?

REQUIRED INPUTS: models, GPUs, the fitted routing, the record, tables 2 and 3. OUTPUTS: tables/data/memory_by_context.csv,
savings_by_batch.csv, saturation.csv; figures/figure1_detailed_memory_breakdown and figure6 to figure9.
"""

from studies.memory_figures.study import STUDY as MEMORY_FIGURES

offer(MEMORY_FIGURES)


def memory_models(key):
    """The models of one list that the default scenario has."""
    return drawn("memory_figures", key, EXPERIMENT.scenario)


def memory_parameters(wildcards):
    """The scenario, the reference GPU, and the models of the figure of contexts."""
    own = {
        "memory_figures": plain(settings("memory_figures")),
        "reference": plain(EXPERIMENT.reference),
        "context_models": memory_models("context_models"),
    }
    return as_json(grid_parameters(EXPERIMENT.scenario) | own)


def components_shown(wildcards):
    """The models of the breakdown, and its GPU and batch size."""
    return {"models": memory_models("component_models")} | plain(EXPERIMENT.reference)


def maps_shown(wildcards):
    """The model of the maps."""
    return {"model": memory_models("map_models")[0]}


def saturation_file(wildcards):
    """The batch from which all experts are needed, of every model."""
    return [path_of("saturation")]


def saturation_shown(wildcards):
    """Where that batch stands."""
    return {"saturation": path_of("saturation")}


def abstract_tables(wildcards):
    """Tables 2 and 3 of the default scenario."""
    return [path_of(name).format(scenario_dir="") for name in ("table2_average_extension", "table3_by_expert_count")]


def abstract_shown(wildcards):
    """The models of the first panel, the limit of slowdown of the second one, and where tables 2 and 3 are."""
    averages, counts = abstract_tables(wildcards)
    limit = {"claimed_slowdown": EXPERIMENT.decode_step.claimed_slowdown}
    return components_shown(wildcards) | limit | {"averages": averages, "counts": counts}


DRAWN["figure1_detailed_memory_breakdown"] = Drawing(EXTENDED_RECORD, components_shown, of_scenario=True)
DRAWN["figure6_savings_vs_batch_by_experts"] = Drawing(
    path_of("savings_by_batch"), saturation_shown, saturation_file, of_scenario=True
)
DRAWN["figure8_longest_context"] = Drawing(RECORD, maps_shown, of_scenario=True)
DRAWN["figure9_graphical_abstract"] = Drawing(RECORD, abstract_shown, abstract_tables, of_scenario=True)


rule memory_figures:
    """Compute memory by context, savings by batch size, and the batch from which all experts are needed."""
    input:
        code=code("workflow/studies/memory_figures/compute.py"),
        gpus=GPU_FILE,
        models=MODEL_FILES,
        variations=variations_of(DEFAULT),
        measured=reserve_files(EXPERIMENT.scenario),
    output:
        contexts=table("memory_by_context"),
        savings=table("savings_by_batch"),
        saturation=table("saturation"),
        prov=sidecars(*[path_of(name) for name in ("memory_by_context", "savings_by_batch", "saturation")]),
    log:
        "logs/memory_figures.log",
    benchmark:
        "benchmarks/memory_figures.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=memory_parameters,
    shell:
        JOB
