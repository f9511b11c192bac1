"""The figures of all studies: one notebook each, run with Papermill.

REQUIRED INPUTS: the notebook of a figure, the README of its study, and the data that it shows. OUTPUTS: figures/,
results/notebooks/.
"""

with exit_on_user_error():
    studies.check_drawn(STUDIES, TARGETS, DRAWN)
    for found in FIGURES.values():
        if found.name not in DRAWN and found.table and found.table not in TABLES:
            where = f"workflow/studies/{STUDY_OF[found.path].id}/study.py"
            raise UserError(
                where, f"figure {found.name}: no table {found.table!r}", "Name a table that a study declares."
            )


wildcard_constraints:
    figure="|".join(FIGURES),


def notebook_of(wildcards):
    """The notebook that draws a figure."""
    return f"notebooks/{wildcards.figure}.ipynb"


def figure_code(wildcards):
    """The script that runs a notebook, and what that and the notebook import."""
    notebook, *modules = code(notebook_of(wildcards))
    return list(dict.fromkeys([*code("workflow/scripts/figure.py"), *modules]))


def drawing(figure):
    """What a figure is drawn from: as its study's rules say, else its declared table under a scenario."""
    return DRAWN.get(figure) or Drawing(path_of(FIGURES[figure].table), no_parameters, of_scenario=True)


def study_readme(wildcards):
    """The README of the figure's study, which says what the figure does not show."""
    return f"workflow/studies/{STUDY_OF[FIGURES[wildcards.figure].path].id}/README.md"


def figure_data(wildcards):
    """The table that a figure shows."""
    return drawing(wildcards.figure).data.format(**wildcards)


def figure_others(wildcards):
    """What a figure shows besides."""
    return drawing(wildcards.figure).others(wildcards)


def figure_parameters(wildcards):
    """The parameters of a notebook: those of its study, and the looks that concern the figure."""
    figure = FIGURES[wildcards.figure]
    shown = drawing(figure.name)
    title = scenario_of(wildcards).title if shown.of_scenario else "recorded traces"
    looks = {"title": title, "style": SETTINGS.style.for_figure(figure.name)}
    return as_json(shown.parameters(wildcards) | looks)


rule figure:
    """Draw a figure by running its notebook; keep the executed notebook and its HTML page."""
    input:
        code=figure_code,
        notebook=notebook_of,
        readme=study_readme,
        record=figure_data,
        also=figure_others,
    output:
        pdf="figures/{scenario_dir}{figure}.pdf",
        png=report(
            "figures/{scenario_dir}{figure}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"item": "{figure}", "scenario": "{scenario_dir}"},
        ),
        executed="results/notebooks/{scenario_dir}{figure}.ipynb",
        page="results/notebooks/{scenario_dir}{figure}.html",
        prov=sidecars(
            "figures/{scenario_dir}{figure}.pdf",
            "figures/{scenario_dir}{figure}.png",
            "results/notebooks/{scenario_dir}{figure}.ipynb",
            "results/notebooks/{scenario_dir}{figure}.html",
        ),
    log:
        "logs/figure/{scenario_dir}{figure}.log",
    benchmark:
        "benchmarks/figure/{scenario_dir}{figure}.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=figure_parameters,
    shell:
        JOB
