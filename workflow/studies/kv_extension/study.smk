"""How much longer can a context be by memory alone, if every expert is always there in time?

REQUIRED INPUTS: the record and the grid of every scenario; table 11, where time was simulated. OUTPUTS: tables/table1
to table4, tables/extended/, figures/figure1 to figure5, for every scenario.
"""

from studies.kv_extension.study import STUDY as KV_EXTENSION

EXTENDED_TABLES = [found.path for found in KV_EXTENSION.extended]

offer(KV_EXTENSION, essential=True)
TARGETS.extend(path for pattern in EXTENDED_TABLES for path in for_every_scenario(pattern))


def gained_in(wildcards):
    """Table 11, where time was simulated under the scenario whose outputs lie in {scenario_dir}: the default one."""
    return built("table11_context_gained") if wildcards.scenario_dir == "" else []


def kv_extension_parameters(wildcards):
    """The configuration that tables 1 and 4 show, and how a missing extension counts in the ranking of table 2."""
    return as_json(plain(EXPERIMENT.reference) | {"zero_fill": scenario_of(wildcards).zero_fill})


def shown_in(figure):
    """The models that a figure shows, and those that it draws of them in a scenario."""

    def parameters(wildcards):
        chosen = {"models": drawn("kv_extension", f"{figure}_models", scenario_name(wildcards))}
        reference = plain(EXPERIMENT.reference)
        return chosen | (reference if figure == "figure1" else {"gpu": reference["gpu"]})

    return parameters


def figure2_shown(wildcards):
    """How a missing extension counts, and what is gained within a limit of slowdown."""
    return figure5_shown(wildcards) | {
        "gained": "".join(gained_in(wildcards)),
        "claimed_slowdown": EXPERIMENT.decode_step.claimed_slowdown,
    }


def figure5_shown(wildcards):
    """How a missing extension counts."""
    return {"zero_fill": scenario_of(wildcards).zero_fill}


DRAWN["figure1_memory_breakdown"] = Drawing(RECORD, shown_in("figure1"), of_scenario=True)
DRAWN["figure2_kv_extension_by_model"] = Drawing(RECORD, figure2_shown, gained_in, of_scenario=True)
DRAWN["figure3_context_scaling"] = Drawing(RECORD, shown_in("figure3"), of_scenario=True)
DRAWN["figure4_batch_context_tradeoff"] = Drawing(RECORD, shown_in("figure4"), of_scenario=True)
DRAWN["figure5_expert_count_analysis"] = Drawing(RECORD, figure5_shown, of_scenario=True)


rule kv_extension:
    """Compute tables 1-4: at the reference configuration, over all configurations, by expert count, longest context."""
    input:
        code=code("workflow/studies/kv_extension/compute.py"),
        record=RECORD,
        gained=gained_in,
    output:
        table1=table("table1_kv_extension_a100_80gb"),
        table2=table("table2_average_extension"),
        table3=table("table3_by_expert_count"),
        table4=table("table4_max_context_length"),
        prov=sidecars(*[found.path for found in KV_EXTENSION.tables]),
    log:
        "logs/{scenario_dir}kv_extension.log",
    benchmark:
        "benchmarks/{scenario_dir}kv_extension.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=kv_extension_parameters,
    shell:
        JOB


rule extended_tables:
    """Compute tables 1-4 once more, with the ends of every number over the interval of routings."""
    input:
        code=code("workflow/studies/kv_extension/extended_tables.py"),
        grid=record_grid,
    output:
        table1=EXTENDED_TABLES[0],
        table2=EXTENDED_TABLES[1],
        table3=EXTENDED_TABLES[2],
        table4=EXTENDED_TABLES[3],
        prov=sidecars(*EXTENDED_TABLES),
    log:
        "logs/{scenario_dir}extended_tables.log",
    benchmark:
        "benchmarks/{scenario_dir}extended_tables.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=kv_extension_parameters,
    shell:
        JOB
