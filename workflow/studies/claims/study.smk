"""Which of the reports' claims hold?

REQUIRED INPUTS: config/claims.yaml, resources/reports/printed.csv, and every finished table that a claim reads.
OUTPUTS: tables/claims.csv, tables/claims.json, figures/claims, where all models are built under both scenarios.
"""

from prophet_moe.claims.ledger import CLAIMS_FILE
from prophet_moe.printed import PRINTED_FILE
from studies.claims.study import STUDY as CLAIMS_STUDY

CLAIMS_JSON = "tables/claims.json"

if {"calibrated": "", "reported": "reported/"}.items() <= SCENARIO_DIRS.items() and EXPERIMENT.models == "all":
    offer(CLAIMS_STUDY)
    TARGETS.append(CLAIMS_JSON)


def tables_for_claims(wildcards):
    """The tables that claims read, among those that this build makes."""
    return list(finished_tables(CLAIMS_FILE).values())


def claims_parameters(wildcards):
    """How claims are judged, and the names of the tables."""
    return as_json({"claims": plain(settings("claims")), "tables": list(finished_tables(CLAIMS_FILE))})


rule claims:
    """Judge every claim of the reports from finished tables."""
    input:
        code=code("workflow/studies/claims/compute.py"),
        claims=str(CLAIMS_FILE),
        printed=str(PRINTED_FILE),
        tables=tables_for_claims,
    output:
        table=table("claims"),
        json=CLAIMS_JSON,
        prov=sidecars(path_of("claims"), CLAIMS_JSON),
    log:
        "logs/claims.log",
    benchmark:
        "benchmarks/claims.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=claims_parameters,
    shell:
        JOB
