"""Which of the reports' claims hold?

REQUIRED INPUTS: config/claims.yaml, resources/reports/printed.csv, every table that a claim reads.
OUTPUTS: tables/claims.csv, tables/claims.json, figures/claims, where a build makes all these tables.
"""

from prophet_moe.claims.ledger import CLAIMS_FILE, tables_read
from prophet_moe.printed import PRINTED_FILE
from studies.claims.study import STUDY as CLAIMS_STUDY

CLAIMS_JSON = "tables/claims.json"
SHARED_TABLES = {
    "prophet_kv_extension_data": RECORD,
    "prophet_kv_extension_extended": EXTENDED_RECORD,
    "model_catalog": CATALOG_TABLE,
}
"""Tables that no study declares, by name."""


def table_claimed(name):
    """The path of a table that claims read, by its name; one of another scenario has that before it."""
    scenario, _, table = name.rpartition("/")
    path = SHARED_TABLES.get(table) or path_of(table)
    return path.format(scenario_dir=f"{scenario}/" if scenario else "")


with exit_on_user_error():
    READ_BY_CLAIMS = tables_read()
    unknown = [name for name in READ_BY_CLAIMS if name.rpartition("/")[2] not in [*SHARED_TABLES, *TABLES]]
    if unknown:
        problem = f"table: got {unknown[0]!r}, expected one of {', '.join([*SHARED_TABLES, *TABLES])}"
        raise UserError(str(CLAIMS_FILE), problem, "Correct the name.")


if set(map(table_claimed, READ_BY_CLAIMS)) <= set(TARGETS):
    offer(CLAIMS_STUDY)
    TARGETS.append(CLAIMS_JSON)


def claims_parameters(wildcards):
    """How claims are judged, and the names of the tables."""
    return as_json({"claims": plain(settings("claims")), "tables": READ_BY_CLAIMS})


rule claims:
    """Judge every claim of the reports from finished tables."""
    input:
        code=code("workflow/studies/claims/compute.py"),
        claims=str(CLAIMS_FILE),
        printed=str(PRINTED_FILE),
        tables=[table_claimed(name) for name in READ_BY_CLAIMS],
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
