"""Strategies of serving experts from a cache, replayed on recorded routing (report 004)."""

COMPARATIVE_TABLE = "tables/data/comparative_results.csv"
DEDUPLICATION_TABLE = "tables/data/expert_deduplication_results.csv"
LAYER_TABLE = "tables/data/comparative_layers.csv"
SWEEP_TABLE = "tables/data/strategy_sweeps.csv"
TABLE8 = "tables/table8_strategies.csv"
TABLE9 = "tables/table9_expert_deduplication.csv"
TABLE10 = "tables/table10_batch_scaling.csv"

FRONTIER_TABLE = "tables/data/frontier.csv"
TABLE11 = "tables/table11_context_gained.csv"

COMPARISON = [COMPARATIVE_TABLE, DEDUPLICATION_TABLE, LAYER_TABLE, SWEEP_TABLE, TABLE8, TABLE9, TABLE10]
SIMULATION = (COMPARISON if SIMULATED else []) + ([FRONTIER_TABLE, TABLE11] if STAND_INS else [])


rule compare_strategies:
    """Serve the held-out tokens of one trace by every strategy, and sweep capacity and link."""
    input:
        code=strategy_code,
        files=trace_files,
        predictor=predictor_if_trained,
        gpus=GPU_FILE,
        measured=measured_reference,
    output:
        results="results/routing/{simulated}/comparative.csv",
        layers="results/routing/{simulated}/comparative_layers.csv",
        sweeps="results/routing/{simulated}/strategy_sweeps.csv",
        prov=sidecars(*[f"results/routing/{{simulated}}/{kind}.csv" for kind in SIMULATION_KINDS[:3]]),
    log:
        "logs/routing/{simulated}/compare_strategies.log",
    benchmark:
        "benchmarks/routing/{simulated}/compare_strategies.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=simulation_parameters,
    shell:
        JOB


rule count_deduplication:
    """Count what batches of one trace save because tokens share experts."""
    input:
        code=code("workflow/scripts/count_deduplication.py"),
        files=trace_files,
    output:
        deduplication="results/routing/{simulated}/deduplication.csv",
        prov=sidecars("results/routing/{simulated}/deduplication.csv"),
    log:
        "logs/routing/{simulated}/count_deduplication.log",
    benchmark:
        "benchmarks/routing/{simulated}/count_deduplication.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=deduplication_parameters,
    shell:
        JOB


rule comparison:
    """Put the runs on all traces into one table each, and compute the three tables of report 004 from them."""
    input:
        code=code("workflow/scripts/comparison.py"),
        of_results=of_simulated("comparative"),
        of_layers=of_simulated("comparative_layers"),
        of_sweeps=of_simulated("strategy_sweeps"),
        of_deduplication=of_simulated("deduplication"),
    output:
        results=data_report(COMPARATIVE_TABLE, "comparative_results"),
        deduplication=data_report(DEDUPLICATION_TABLE, "expert_deduplication_results"),
        layers=data_report(LAYER_TABLE, "comparative_layers"),
        sweeps=data_report(SWEEP_TABLE, "strategy_sweeps"),
        strategies=data_report(TABLE8, "table8_strategies"),
        savings=data_report(TABLE9, "table9_expert_deduplication"),
        scaling=data_report(TABLE10, "table10_batch_scaling"),
        prov=sidecars(*COMPARISON),
    log:
        "logs/comparison.log",
    benchmark:
        "benchmarks/comparison.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=as_json({"claimed": EXPERIMENT.reported_comparison.model_dump(mode="json")}),
    shell:
        JOB


rule replay_frontier:
    """Replay the routing that stands in for some models with their times, on every GPU, at every number of experts."""
    input:
        code=frontier_code,
        trace=trace_of_source,
        predictor=predictor_of_source,
        calibrated=calibrated_of_source,
        discrimination=discrimination_of_source,
        models=models_of_source,
        gpus=GPU_FILE,
        measured=[path for name in MEASURED_GPUS for path in sorted((HARDWARE_FOLDER / name).glob("*"))],
        grid=f"results/{EXPERIMENT.scenario}/grid.parquet",
    output:
        slowdowns="results/frontier/{source}.parquet",
        prov=sidecars("results/frontier/{source}.parquet"),
    log:
        "logs/frontier/{source}.log",
    benchmark:
        "benchmarks/frontier/{source}.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=frontier_parameters,
    shell:
        JOB


rule frontier:
    """Set the slowdown of every configuration beside its KV extension, and tell the context gained at each limit."""
    input:
        code=code("workflow/scripts/frontier.py"),
        slowdowns=[f"results/frontier/{name}.parquet" for name in STAND_INS],
        grid=f"results/{EXPERIMENT.scenario}/grid.parquet",
    output:
        frontier=data_report(FRONTIER_TABLE, "frontier"),
        gained=data_report(TABLE11, "table11_context_gained"),
        prov=sidecars(FRONTIER_TABLE, TABLE11),
    log:
        "logs/frontier.log",
    benchmark:
        "benchmarks/frontier.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        files=files,
        parameters=gained_parameters,
    shell:
        JOB
