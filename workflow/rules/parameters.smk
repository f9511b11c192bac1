"""What the jobs of each stage depend on besides files: settings, captions and the notebook of a figure."""

from functools import cache

from jinja2 import StrictUndefined, Template


def grid_parameters(scenario):
    """What the grid of a scenario depends on besides the model and GPU files, as JSON-like values."""
    return {
        "scenario": EXPERIMENT.scenarios[scenario].model_dump(mode="json"),
        "gpus": EXPERIMENT.gpus,
        "batch_sizes": EXPERIMENT.batch_sizes,
        "memory": str(MEMORY_FOLDER),
    }


def sweep_parameters(wildcards):
    """The parameters of the grid of a scenario."""
    return as_json(grid_parameters(wildcards.scenario))


def default_grid_parameters(wildcards):
    """The parameters of the grid of the default scenario."""
    return as_json(grid_parameters(EXPERIMENT.scenario))


def sensitivity_parameters(wildcards):
    """The same, and the assumptions that are changed."""
    return as_json(grid_parameters(EXPERIMENT.scenario) | {"sensitivity": EXPERIMENT.sensitivity.model_dump()})


def variations_for(wildcards):
    """The tables of fitted routing, where a scenario's routing is fitted."""
    return variation_tables(EXPERIMENT.scenarios[wildcards.scenario])


def variation_tables(scenario):
    """What a scenario's routing is fitted to: traces, and counts where a model has its own."""
    return [VARIATION_TABLE] * scenario.fits_routing + [COUNTS_TABLE] * scenario.fits_counts


def measured_reserves_for(wildcards):
    """The measured memory of the grid's GPUs, where a scenario takes its runtime reserve from it."""
    return reserve_files(wildcards.scenario)


def measured_reserves_for_default(wildcards):
    """The measured memory of the grid's GPUs, where the default scenario takes its runtime reserve from it."""
    return reserve_files(EXPERIMENT.scenario)


def reserve_files(scenario):
    """The files of all measurements that a scenario takes its runtime reserve from."""
    wanted = EXPERIMENT.scenarios[scenario].runtime_reserve == "measured"
    names = [folder.name for folder in MEASURED_MEMORY if wanted and folder.name in EXPERIMENT.gpus]
    return [path for name in names for path in sorted((MEMORY_FOLDER / name).glob("*"))]


def variations_for_default(wildcards):
    """The tables of fitted routing, where the default scenario's routing is fitted."""
    return variation_tables(EXPERIMENT.scenarios[EXPERIMENT.scenario])


def grid_of(wildcards):
    """The grid of the scenario whose outputs lie at {at}."""
    return f"results/{scenario_name(wildcards)}/grid.parquet"


def gained_at(wildcards):
    """Table 11, where time was simulated under the scenario whose outputs lie at {at}: the default one."""
    return gained_by_default(wildcards) if wildcards.at == "" else []


def numbers_parameters(wildcards):
    """The scenarios, in the order of their records, and the slowdown whose price the text quotes."""
    claimed = EXPERIMENT.decode_step.claimed_slowdown
    return as_json({"scenarios": list(PLACES), "claimed_slowdown": claimed})


def paper_figures(at):
    """Figures of the paper: 1-5 of each scenario, and the frontier where time was simulated."""
    return [*FIGURE_NAMES, *(["frontier"] if at == "" and STAND_INS else [])]


def gained_by_default(wildcards):
    """Table 11, where time was simulated."""
    return [TABLE11] if STAND_INS else []


def table_parameters(wildcards):
    """The configuration that tables 1 and 4 show, and how a missing extension counts in the ranking of table 2."""
    return as_json(EXPERIMENT.reference.model_dump() | {"zero_fill": scenario_at(wildcards).zero_fill})


def table_report(path, name):
    """Mark a table for the report."""
    return report(
        path,
        caption=f"../report/{name}.rst",
        category="Tables",
        labels={"item": name.split("_")[0], "place": "{at}"},
    )


def data_report(path, name):
    """Mark a data file about traces for the report."""
    return report(
        path, caption=f"../report/{name}.rst", category="Data", labels={"item": name.replace("_", " "), "place": "all"}
    )


def figure_notebook(wildcards):
    """The notebook that draws a figure."""
    return NOTEBOOK_FOLDER / f"{wildcards.figure}.ipynb"


def figure_record(wildcards):
    """The data that a figure shows: the record of its scenario, or a table about traces."""
    return TRACE_FIGURES.get(wildcards.figure) or RECORD.format(at=wildcards.at)


def figure_also(wildcards):
    """What a figure shows besides: the frontier, the records of capacity where only memory counts."""
    if wildcards.figure == "figure2_kv_extension_by_model":
        return gained_at(wildcards)
    return [path for path in frontier_records().values() if path] if wildcards.figure == "frontier" else []


def frontier_records():
    """The record of capacity of the default scenario, and the one that reproduces the report where that is built."""
    claims = RECORD.format(at=PLACES["reported"]) if "reported" in PLACES else ""
    return {"capacity": RECORD.format(at=""), "claims": claims}


def figure_code(wildcards):
    """The code behind a figure: the script that runs its notebook, and what the notebook imports."""
    notebook, *modules = code(figure_notebook(wildcards))
    return code("workflow/scripts/figure.py") + modules


def figure_parameters(wildcards):
    """The parameters of one figure: its own science, and the looks that concern it."""
    scenario = scenario_at(wildcards)
    reference = EXPERIMENT.reference.model_dump()
    claimed = EXPERIMENT.reported_comparison.model_dump(mode="json")
    sizes, slowdown = EXPERIMENT.simulation.sweep_batch_sizes, EXPERIMENT.decode_step.claimed_slowdown
    simulated = [title(name) for name in SIMULATED]
    swept = sizes[len(sizes) // 2]
    science = {
        "figure1_memory_breakdown": reference,
        "figure2_kv_extension_by_model": {
            "zero_fill": scenario.zero_fill,
            "gained": "".join(gained_at(wildcards)),
            "claimed_slowdown": slowdown,
        },
        "figure3_context_scaling": {"gpu": reference["gpu"]},
        "figure4_batch_context_tradeoff": {"gpu": reference["gpu"]},
        "figure5_expert_count_analysis": {"zero_fill": scenario.zero_fill},
        "routing_statistics": {"traces": [title(name) for name in (*TRACES, *DATASETS)]},
        "routing_law": {"traces": [title(name) for name in FITTED]},
        "prediction": {"traces": [title(name) for name in PREDICTED]},
        "comparative_evaluation": {"traces": simulated, "claimed": claimed},
        "expert_deduplication": {"traces": simulated, "claimed": claimed},
        "layer_detail": {"traces": simulated},
        "strategy_sweeps": {"traces": simulated, "batch": swept, "claimed_slowdown": slowdown},
        "frontier": reference
        | frontier_records()
        | {"limits": EXPERIMENT.simulation.slowdown_limits, "claimed_slowdown": slowdown},
    }[wildcards.figure]
    if wildcards.figure in type(EXPERIMENT.figure_models).model_fields:
        shown = EXPERIMENT.figure_models.drawn(wildcards.figure, COVERED[scenario_name(wildcards)])
        science = science | {"models": shown}
    of_scenario = wildcards.figure in FIGURE_NAMES or wildcards.figure == "frontier"
    shown = scenario.title if of_scenario else "recorded traces"
    return as_json(science | {"title": shown, "style": SETTINGS.style.for_figure(wildcards.figure)})


def caption(template, **wildcards):
    """The caption of a figure or table: the same text as in the report, filled in from the settings."""
    filled = caption_template(template).render(snakemake={"config": config, "wildcards": wildcards})
    return " ".join(filled.split())


@cache
def caption_template(name):
    """The template of a caption, read once."""
    text = (Path(workflow.basedir) / f"workflow/report/{name}.rst").read_text()
    return Template(text, undefined=StrictUndefined)


def label_prefix(wildcards):
    """What keeps the LaTeX labels of scenarios apart: empty, or "reported:"."""
    return "".join(f"{part}:" for part in Path(wildcards.at).parts)


def latex_table_parameters(wildcards):
    """Captions, and a label prefix that keeps scenarios apart."""
    captions = {name.split("_")[0]: caption(name, at=wildcards.at) for name in TABLE_NAMES}
    claimed = EXPERIMENT.decode_step.claimed_slowdown
    label = f"tab:{label_prefix(wildcards)}"
    return as_json({"captions": captions, "label": label, "claimed_slowdown": claimed})


def figures_tex_parameters(wildcards):
    """Path, caption, label and width of every figure."""
    place = wildcards.at
    return as_json(
        {
            "figures": [
                {
                    "path": f"../figures/{place}{name}.pdf",
                    "caption": caption("figure", at=place, figure=name),
                    "label": f"fig:{label_prefix(wildcards)}{name.split('_')[0]}",
                    "width_in": getattr(SETTINGS.style.figures, name).width_in,
                }
                for name in paper_figures(place)
            ]
        }
    )
