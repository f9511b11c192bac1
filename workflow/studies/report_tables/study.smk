"""What do the tables of the reports say, what do their own constants give, and what is right?

REQUIRED INPUTS: resources/reports/printed.csv, models, GPUs, the fitted routing. OUTPUTS:
tables/table21_report_tables.csv, figures/report_tables.
"""

from prophet_moe.settings.scenario import REPORTED
from prophet_moe.printed import PRINTED_FILE
from studies.report_tables.study import STUDY as REPORT_TABLES

offer(REPORT_TABLES)


def report_tables_parameters(wildcards):
    """The default scenario, that of the reports' constants, and what report 003 leaves unsaid."""
    own = {"reported": plain(REPORTED), "report_tables": plain(settings("report_tables"))}
    return as_json(grid_parameters(EXPERIMENT.scenario) | own)


rule report_tables:
    """Compute every number of the reports' tables: under the reports' own constants, and corrected."""
    input:
        code=code("workflow/studies/report_tables/compute.py"),
        printed=str(PRINTED_FILE),
        gpus=GPU_FILE,
        models=MODEL_FILES,
        variations=variations_of(DEFAULT),
        measured=reserve_files(EXPERIMENT.scenario),
    output:
        table=table("table21_report_tables"),
        prov=sidecars(path_of("table21_report_tables")),
    log:
        "logs/report_tables.log",
    benchmark:
        "benchmarks/report_tables.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=report_tables_parameters,
    shell:
        JOB
