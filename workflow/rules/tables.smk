"""Tables 1-4 from the record."""

TABLE_NAMES = (
    "table1_kv_extension_a100_80gb",
    "table2_average_extension",
    "table3_by_expert_count",
    "table4_max_context_length",
)
TABLE1, TABLE2, TABLE3, TABLE4 = (f"tables/{{at}}{name}.csv" for name in TABLE_NAMES)

EXTENDED_TABLES = [f"tables/{{at}}extended/{name}.csv" for name in TABLE_NAMES]

ESSENTIAL_TABLES = everywhere("tables/{at}{name}.csv", name=TABLE_NAMES)
TABLES = ESSENTIAL_TABLES + everywhere("tables/{at}extended/{name}.csv", name=TABLE_NAMES)


rule tables:
    """Compute tables 1-4: at the reference configuration, over all configurations, by expert count, longest context."""
    input:
        code=code("workflow/scripts/tables.py"),
        record=RECORD,
        gained=gained_at,
    output:
        table1=table_report(TABLE1, TABLE_NAMES[0]),
        table2=table_report(TABLE2, TABLE_NAMES[1]),
        table3=table_report(TABLE3, TABLE_NAMES[2]),
        table4=table_report(TABLE4, TABLE_NAMES[3]),
        prov=sidecars(TABLE1, TABLE2, TABLE3, TABLE4),
    log:
        "logs/{at}tables.log",
    benchmark:
        "benchmarks/{at}tables.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=table_parameters,
    shell:
        JOB


rule extended_tables:
    """Compute tables 1-4 once more, with the ends of every number over the interval of routings."""
    input:
        code=code("workflow/scripts/extended_tables.py"),
        grid=grid_of,
    output:
        table1=EXTENDED_TABLES[0],
        table2=EXTENDED_TABLES[1],
        table3=EXTENDED_TABLES[2],
        table4=EXTENDED_TABLES[3],
        prov=sidecars(*EXTENDED_TABLES),
    log:
        "logs/{at}extended_tables.log",
    benchmark:
        "benchmarks/{at}extended_tables.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=table_parameters,
    shell:
        JOB
