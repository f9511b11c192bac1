"""How much longer can a context be within a limit of the slowdown of a decode step?

REQUIRED INPUTS: the capacity grid; a proxy routing of each model: traces with predictors, or calibrated routing.
OUTPUTS: tables/data/frontier.csv, tables/table11_context_gained.csv, figures/frontier.
"""

from studies.frontier.proxies import proxies
from studies.frontier.study import STUDY as FRONTIER

CALIBRATED_FOLDER = Path("resources/routing")

with exit_on_user_error():
    PROXIES = proxies(settings("frontier").traces, HERE, CALIBRATED_FOLDER, MODELS)

if PROXIES:
    offer(FRONTIER)


wildcard_constraints:
    source="|".join(PROXIES),


def proxy_trace(wildcards):
    """The files of a proxy that is a recorded trace."""
    return HERE.trace_files(wildcards.source) if wildcards.source in HERE.traces else []


def proxy_predictor(wildcards):
    """The files of the predictor of such a trace."""
    return HERE.predictor_files(wildcards.source) if wildcards.source in HERE.traces else []


def proxy_calibrated(wildcards):
    """The file of a proxy that is calibrated routing."""
    return [] if wildcards.source in HERE.traces else [CALIBRATED_FOLDER / f"{wildcards.source}.json"]


def proxy_discrimination(wildcards):
    """The measured discrimination of the predictor that is used for calibrated routing."""
    measured = HERE.result(settings("frontier").predictor, "discrimination")
    return [] if wildcards.source in HERE.traces else [measured]


def proxied_models(wildcards):
    """The files of the models that a routing is the proxy of."""
    return [MODEL_FOLDER / f"{name}.yaml" for name in PROXIES[wildcards.source]]


def replay_frontier_parameters(wildcards):
    """Parameters of a simulation, in addition to files."""
    return as_json(
        {
            "name": wildcards.source,
            "context": EXPERIMENT.decode_step.context_tokens,
            "formats": plain(DEFAULT, include=set(Formats.model_fields)),
            "copy_chunk_mb": EXPERIMENT.replay.copy_chunk_mb,
            "settings": plain(settings("frontier"), exclude={"models", "traces", "predictor", "slowdown_limits"}),
            "profiles": str(PROFILE_FOLDER),
            "link": EXPERIMENT.decode_step.link,
        }
    )


def frontier_parameters(wildcards):
    """Parameters of the memory of the frontier, in addition to the grid."""
    limits = {*settings("frontier").slowdown_limits, EXPERIMENT.decode_step.claimed_slowdown}
    return as_json({"scenario": plain(DEFAULT), "slowdown_limits": sorted(limits)})


def frontier_records(wildcards):
    """The records of capacity where only memory counts: of the default scenario, and of the report where it is built."""
    return [path for path in (RECORD.format(scenario_dir=""), reported_record()) if path]


def reported_record():
    """The record that reproduces the report's factors, where it is built."""
    return RECORD.format(scenario_dir=SCENARIO_DIRS["reported"]) if "reported" in SCENARIO_DIRS else ""


def frontier_shown(wildcards):
    """The configurations and limits that the figure shows."""
    return plain(EXPERIMENT.reference) | {
        "models": drawn("frontier", "models", EXPERIMENT.scenario),
        "capacity": RECORD.format(scenario_dir=""),
        "claims": reported_record(),
        "limits": settings("frontier").slowdown_limits,
        "claimed_slowdown": EXPERIMENT.decode_step.claimed_slowdown,
    }


DRAWN["frontier"] = Drawing(path_of("frontier"), frontier_shown, frontier_records, of_scenario=True)


rule replay_frontier:
    """Simulate each model whose proxy is this routing, on every GPU and for every number of resident experts."""
    input:
        code=with_strategies("workflow/studies/frontier/replay_frontier.py"),
        trace=proxy_trace,
        predictor=proxy_predictor,
        calibrated=proxy_calibrated,
        discrimination=proxy_discrimination,
        models=proxied_models,
        gpus=GPU_FILE,
        measured=PROFILE_FILES,
        operators=OPERATOR_FILES,
        links=LINK_FILE,
        grid=GRID,
    output:
        slowdowns="results/frontier/{source}.parquet",
        prov=sidecars("results/frontier/{source}.parquet"),
    log:
        "logs/replay_frontier/{source}.log",
    benchmark:
        "benchmarks/replay_frontier/{source}.tsv"
    # The longest jobs of the essentials begin before the figures that do not wait for them.
    priority: 1
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=replay_frontier_parameters,
    shell:
        JOB


rule frontier:
    """Put slowdown and KV extension of every configuration into one table, and the context gained at each limit."""
    input:
        code=code("workflow/studies/frontier/compute.py"),
        slowdowns=[f"results/frontier/{name}.parquet" for name in PROXIES],
        models=MODEL_FILES,
        gpus=GPU_FILE,
        engine=engine_files(EXPERIMENT.scenario),
        grid=GRID,
    output:
        frontier=table("frontier"),
        gained=table("table11_context_gained"),
        prov=sidecars(path_of("frontier"), path_of("table11_context_gained")),
    log:
        "logs/frontier.log",
    benchmark:
        "benchmarks/frontier.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=frontier_parameters,
    shell:
        JOB
