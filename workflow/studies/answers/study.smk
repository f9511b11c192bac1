"""What do the reports advise, and what should one do?

REQUIRED INPUTS: config/answers.yaml, table 16, and every finished table that an answer reads, where a build makes it.
OUTPUTS: tables/table23_answers.csv, tables/data/decision_tree.csv, tables/data/decision_steps.csv, figures/decision_tree.
"""

from prophet_moe.claims.answers import ANSWERS_FILE
from studies.answers.study import STUDY as ANSWERS_STUDY

# Table 16 needs the routing of published models.
if any(Path("resources/routing").glob("*.json")):
    offer(ANSWERS_STUDY)


def tables_for_answers(wildcards):
    """The tables that answers read, among those that this build makes."""
    return list(finished_tables(ANSWERS_FILE).values())


def answers_parameters(wildcards):
    """The names of the tables, in the order of their files."""
    return as_json({"tables": list(finished_tables(ANSWERS_FILE))})


rule decision_tree:
    """Find the leaf of our own decision tree that each pair of model and machine comes to."""
    input:
        code=code("workflow/studies/answers/decision_tree.py"),
        pays=path_of("table16_where_it_pays"),
    output:
        table=table("decision_tree"),
        prov=sidecars(path_of("decision_tree")),
    log:
        "logs/decision_tree.log",
    benchmark:
        "benchmarks/decision_tree.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=NONE,
    shell:
        JOB


rule answers:
    """Answer what the reports advise, and fill our own decision tree, from finished tables."""
    input:
        code=code("workflow/studies/answers/compute.py"),
        answers=str(ANSWERS_FILE),
        tables=tables_for_answers,
    output:
        table=table("table23_answers"),
        steps=table("decision_steps"),
        prov=sidecars(path_of("table23_answers"), path_of("decision_steps")),
    log:
        "logs/answers.log",
    benchmark:
        "benchmarks/answers.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=answers_parameters,
    shell:
        JOB
