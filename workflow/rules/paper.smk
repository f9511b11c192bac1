"""LaTeX: tables, macros for quoted numbers, figure environments, and the paper where TeX is installed.

REQUIRED INPUTS: tables 1-4, 11, 14 and prefill, the records, paper/main.tex, the paper's figures. OUTPUTS:
paper/generated/, results/headlines.txt, paper/main.pdf.
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

TEX_IS_INSTALLED = shutil.which("latexmk") is not None
# The text speaks of both scenarios, and of the calibrated one first.
PAPER_IS_TOLD = {"calibrated": "", "reported": "reported/"}.items() <= SCENARIO_DIRS.items()
PAPER = ["paper/main.pdf"] if TEX_IS_INSTALLED and PAPER_IS_TOLD else []


def without_paper():
    """One line where the paper is left out because a scenario that it speaks of is not built."""
    left_out = "note: paper/main.pdf and its supplement are not built: they need calibrated as the default scenario, and the scenario reported"
    return [] if PAPER_IS_TOLD else [left_out]


NOTES.append(without_paper)


def numbers_parameters(wildcards):
    """The scenarios, in the order of their records, and the slowdown whose price the text quotes."""
    claimed = EXPERIMENT.decode_step.claimed_slowdown
    return as_json({"scenarios": list(SCENARIO_DIRS), "claimed_slowdown": claimed})


def figures_in_paper(scenario_dir):
    """Figures of the paper: predictions beside observations first, 1-5 of each scenario, and the frontier."""
    shown = {"observed": built("table14_observed"), **dict.fromkeys(PAPER_FIGURES, True), "frontier": built("frontier")}
    return [name for name, is_built in shown.items() if name in PAPER_FIGURES or (is_built and scenario_dir == "")]


def label_prefix(wildcards):
    """What keeps the LaTeX labels of scenarios apart: empty, or "reported:"."""
    return "".join(f"{part}:" for part in Path(wildcards.scenario_dir).parts)


def latex_table_parameters(wildcards):
    """Captions, and a label prefix that keeps scenarios apart."""
    captions = {name.split("_")[0]: caption(TABLES[name], wildcards.scenario_dir) for name in PAPER_TABLES}
    claimed = EXPERIMENT.decode_step.claimed_slowdown
    label = f"tab:{label_prefix(wildcards)}"
    return as_json({"captions": captions, "label": label, "claimed_slowdown": claimed})


def figures_tex_parameters(wildcards):
    """Path, caption, label and width of every figure."""
    place = wildcards.scenario_dir
    return as_json(
        {
            "figures": [
                {
                    "path": f"../figures/{place}{name}.pdf",
                    "caption": caption(FIGURES[name], place),
                    "label": f"fig:{label_prefix(wildcards)}{name.split('_')[0]}",
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
    """Write the figure environments with their captions."""
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


rule paper:
    """Compile the paper from its text and the generated tables, numbers and figures."""
    input:
        code=code("workflow/scripts/paper.py"),
        main="paper/main.tex",
        generated=LATEX + [f"figures/{at}{name}.pdf" for at in SCENARIO_DIRS.values() for name in figures_in_paper(at)],
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
