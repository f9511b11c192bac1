"""LaTeX: tables, macros for quoted numbers, macros for figures, and the paper where TeX is installed.

REQUIRED INPUTS: tables 1-4, 11, 14 and prefill, the records, the tables and figures that the paper shows, paper/main.tex,
paper/references.bib. OUTPUTS: paper/generated/, results/headlines.txt, paper/main.pdf.
"""

PAPER_TABLES = [found.name for found in STUDIES["kv_extension"].tables]
PAPER_FIGURES = [figure.name for figure in STUDIES["kv_extension"].figures]
TEX_TABLES = {f"table{n}_tex": f"paper/generated/{{scenario_dir}}table{n}.tex" for n in range(1, 5)}
FIGURES_TEX = "paper/generated/{scenario_dir}figures.tex"
NUMBERS_TEX = "paper/generated/numbers.tex"
HEADLINES = "results/headlines.txt"

LATEX = [path for name in (*TEX_TABLES.values(), FIGURES_TEX) for path in for_every_scenario(name)] + [NUMBERS_TEX]
TARGETS.extend(LATEX)
ESSENTIALS.extend(LATEX)

PAPER_NUMBERS = "paper/generated/paper_numbers.tex"
NUMBERED = {
    "transfer": "published_routing_transfer",
    "fits": "routing_law_fits",
    "exponents": "table5_routing_exponents",
    "pools": "published_routing_pools",
    "predicted": "table6_prediction",
    "strategies": "table8_strategies",
    "savings": "table9_expert_deduplication",
    "gained": "table11_context_gained",
    "pays": "table16_where_it_pays",
    "gpus": "table18_several_gpus",
    "served": "table20_dynamic_batching",
    "batching": "batching_claims",
    "varied": "table22_sensitivity",
    "assumed": "headline_sensitivity",
    "planned": "table15_planner",
    "cases": "table19_use_cases",
    "printed": "table21_report_tables",
}
"""Tables that the paper alone quotes, by the names of the inputs of its numbers."""
PAPER_SHOWS = (
    "observed",
    "figure2_kv_extension_by_model",
    "routing_law",
    "frontier",
    "where_it_pays",
    "comparative_evaluation",
    "dynamic_batching",
    "sensitivity",
)
"""Figures of the paper, in its order."""

TEX_IS_INSTALLED = shutil.which("latexmk") is not None
# The text speaks of both scenarios, of the calibrated one first, of all models, and of every study that it quotes.
PAPER_IS_TOLD = (
    {"calibrated": "", "reported": "reported/"}.items() <= SCENARIO_DIRS.items()
    and EXPERIMENT.models == "all"
    and hasattr(DEFAULT.resident, "quantile")
    and all(built(name) for name in NUMBERED.values())
    and {f"figures/{name}.pdf" for name in PAPER_SHOWS} <= set(TARGETS)
)
TARGETS.extend([PAPER_NUMBERS] if PAPER_IS_TOLD else [])
PAPER = ["paper/main.pdf"] if TEX_IS_INSTALLED and PAPER_IS_TOLD else []


def without_paper():
    """One line where the paper is left out because this build has not all that its text speaks of."""
    left_out = (
        "note: paper/main.pdf and its supplement are not built: they need calibrated as the default scenario, with a quantile of resident "
        "experts, the scenario reported, all models, and every study that they quote"
    )
    return [] if PAPER_IS_TOLD else [left_out]


NOTES.append(without_paper)


def numbers_parameters(wildcards):
    """The scenarios, in the order of their records, and the slowdown whose price the text quotes."""
    claimed = EXPERIMENT.decode_step.claimed_slowdown
    return as_json({"scenarios": list(SCENARIO_DIRS), "claimed_slowdown": claimed})


def figures_in_paper(scenario_dir):
    """Figures that LaTeX can place: 1-5 of each scenario, and what the paper shows of those that are built."""
    shown = PAPER_SHOWS if scenario_dir == "" else ()
    return [*PAPER_FIGURES, *(name for name in shown if name not in PAPER_FIGURES and f"figures/{name}.pdf" in TARGETS)]


def label_prefix(wildcards):
    """What keeps the LaTeX labels of scenarios apart: empty, or "reported:"."""
    return "".join(f"{part}:" for part in Path(wildcards.scenario_dir).parts)


def latex_table_parameters(wildcards):
    """Captions, and a label prefix that keeps scenarios apart."""
    captions = {name.split("_")[0]: caption(TABLES[name], wildcards.scenario_dir) for name in PAPER_TABLES}
    claimed = EXPERIMENT.decode_step.claimed_slowdown
    label = f"tab:{label_prefix(wildcards)}"
    return as_json({"captions": captions, "label": label, "claimed_slowdown": claimed})


def ledger():
    """The ledger of claims in a list; empty where a build does not make it."""
    return built("claims") if "claims" in TABLES else []


def printed_in_paper():
    """Figures and tables of the paper by name: the output whose code made it, what made it, and the data in it."""
    figures = {
        name: {
            "output": f"figures/{name}.pdf",
            "maker": f"notebooks/{name}.ipynb",
            "data": [drawing(name).data.format(scenario_dir="")],
        }
        for name in PAPER_SHOWS
    }
    tables = {
        "table_observed": {"output": NUMBERS_TEX, "maker": "rule numbers", "data": built("table14_observed")},
        "table_price": {"output": NUMBERS_TEX, "maker": "rule numbers", "data": built("table11_context_gained")},
        "table_machines": {
            "output": "",
            "maker": "rule paper_numbers",
            "data": [path_of(NUMBERED["pays"])],
        },
        "table_claims": {"output": "", "maker": "rule paper_numbers", "data": ledger()},
        "table_named_claims": {"output": "", "maker": "rule paper_numbers", "data": ledger()},
    }
    return figures | tables


def paper_numbers_parameters(wildcards):
    """The settings that the text names, and what made each figure and table of the paper."""
    scenario = EXPERIMENT.scenarios[EXPERIMENT.scenario]
    named = {
        "claimed_slowdown": EXPERIMENT.decode_step.claimed_slowdown,
        "context_tokens": EXPERIMENT.decode_step.context_tokens,
        "gpu": EXPERIMENT.reference.gpu,
        "batch_size": EXPERIMENT.reference.batch_size,
        "resident_quantile": scenario.resident.quantile,
        "runtime_reserve_mib": scenario.runtime_reserve_mib,
        "prefill_chunk_tokens": scenario.activation.prefill_chunk_tokens,
        "predictor_hidden": scenario.predictor_hidden,
        "capacity_share": settings("comparison").capacity_share,
        "sequences": settings("comparison").sequences,
        "claimed_hit_rate": max(settings("sensitivity").hit_rate),
    }
    return as_json({"settings": named, "printed": printed_in_paper()})


def figures_tex_parameters(wildcards):
    """Name, path, caption, label and width of every figure; the paper itself names its scenario."""
    place = wildcards.scenario_dir
    told = f" Scenario {scenario_of(wildcards).title}." if place == "" else ""
    return as_json(
        {
            "figures": [
                {
                    "name": "_".join([*Path(place).parts, name]),
                    "path": f"../figures/{place}{name}.pdf",
                    "caption": caption(FIGURES[name], place).removesuffix(told),
                    "label": f"fig:{label_prefix(wildcards)}{name}",
                    "width_in": SETTINGS.style.size_of(FIGURES[name]).width_in,
                }
                for name in figures_in_paper(place)
            ]
        }
    )


rule latex_tables:
    """Typeset tables 1-4 with booktabs and siunitx."""
    input:
        code=code("workflow/scripts/latex_tables.py"),
        table1=path_of("table1_kv_extension_a100_80gb"),
        table2=path_of("table2_average_extension"),
        table3=path_of("table3_by_expert_count"),
        table4=path_of("table4_max_context_length"),
    output:
        **TEX_TABLES,
        prov=sidecars(*TEX_TABLES.values()),
    log:
        "logs/{scenario_dir}latex_tables.log",
    benchmark:
        "benchmarks/{scenario_dir}latex_tables.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=latex_table_parameters,
    shell:
        JOB


rule numbers:
    """Collect the numbers that the text quotes as LaTeX macros, and the lines that end a build."""
    input:
        code=code("workflow/scripts/numbers.py"),
        records=for_every_scenario(RECORD),
        gained=built("table11_context_gained"),
        prefill=path_of("prefill"),
        rules=path_of("resident_rules"),
        sets=built("predicted_sets"),
        observed=built("table14_observed") + built("observed_rows"),
    output:
        macros=NUMBERS_TEX,
        headlines=HEADLINES,
        prov=sidecars(NUMBERS_TEX, HEADLINES),
    log:
        "logs/numbers.log",
    benchmark:
        "benchmarks/numbers.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=numbers_parameters,
    shell:
        JOB


rule figures_tex:
    """Write a macro per figure, which places it with its caption."""
    input:
        code=code("workflow/scripts/figures_tex.py"),
    output:
        tex=FIGURES_TEX,
        prov=sidecars(FIGURES_TEX),
    log:
        "logs/{scenario_dir}figures_tex.log",
    benchmark:
        "benchmarks/{scenario_dir}figures_tex.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=figures_tex_parameters,
    shell:
        JOB


rule paper_numbers:
    """Collect the numbers that only the paper quotes, and what made each of its figures and tables."""
    input:
        **{name: path_of(found) for name, found in NUMBERED.items()},
        code=code("workflow/scripts/paper_numbers.py"),
        record=RECORD.format(scenario_dir=""),
        alternatives=path_of("table17_alternatives").format(scenario_dir=""),
        ledger=ledger(),
        made=sidecars(*dict.fromkeys(each["output"] for each in printed_in_paper().values() if each["output"])),
    output:
        macros=PAPER_NUMBERS,
        prov=sidecars(PAPER_NUMBERS),
    log:
        "logs/paper_numbers.log",
    benchmark:
        "benchmarks/paper_numbers.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=paper_numbers_parameters,
    shell:
        JOB


rule paper:
    """Compile the paper from its text and the generated tables, numbers and figures."""
    input:
        code=code("workflow/scripts/paper.py"),
        main="paper/main.tex",
        references="paper/references.bib",
        generated=[NUMBERS_TEX, PAPER_NUMBERS, FIGURES_TEX.format(scenario_dir="")],
        figures=[f"figures/{name}.pdf" for name in PAPER_SHOWS],
    output:
        pdf="paper/main.pdf",
        prov=sidecars("paper/main.pdf"),
    log:
        "logs/paper.log",
    benchmark:
        "benchmarks/paper.tsv"
    conda:
        "../../envs/paper.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB
