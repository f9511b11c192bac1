"""Which strategy of serving experts from a cache is the fastest on recorded routing? Report 004 asks it.

REQUIRED INPUTS: traces, predictors where there are some, the GPU of `reference`. OUTPUTS: tables 8-10,
tables/data/comparative_results.csv and its neighbours, figures comparative_evaluation, expert_deduplication,
layer_detail, strategy_sweeps.
"""

from prophet_moe.files import sha256
from studies.comparison.selection import Selection, replayed_alike, timing_models
from studies.comparison.study import STUDY as COMPARISON

REPLAY_KINDS = ("comparative", "comparative_layers", "strategy_sweeps")

with exit_on_user_error():
    TIMED = timing_models(HERE, EXPERIMENT.replay.timed_as, MODEL_FOLDER, KNOWN_DATA)


def replay_settings(name):
    """Parameters of the simulations of a trace, in addition to the trace, its predictor and the GPU's profile."""
    chosen = plain(settings("comparison"), exclude={"dedup_samples", "reported"})
    return {
        "name": HERE.title(name),
        "gpu": EXPERIMENT.reference.gpu,
        "model": TIMED[name],
        "context": EXPERIMENT.decode_step.context_tokens,
        "formats": plain(DEFAULT, include=set(Formats.model_fields)),
        "simulation": chosen | {"copy_chunk_mb": EXPERIMENT.replay.copy_chunk_mb},
        "profiles": str(PROFILE_FOLDER),
        "link": EXPERIMENT.decode_step.link,
    }


def deduplication_settings(name):
    """Parameters of the counts of a trace, in addition to the trace."""
    chosen = plain(settings("comparison"), include={"batch_sizes", "dedup_samples"})
    return {"name": HERE.title(name), "simulation": chosen}


def recorded_settings(name):
    """The settings that what is recorded of a dataset's replays depends on, and the files that its times rest on."""
    timed_by = {str(path): sha256(path) for path in (*OPERATOR_FILES, LINK_FILE)}
    replayed = replay_settings(name) | {"timed_by": timed_by}
    return {"compare_strategies": replayed, "count_deduplication": deduplication_settings(name)}


SELECTION = Selection(
    HERE,
    TIMED,
    2 * settings("comparison").sequences,
    replayed_alike(
        HERE,
        {name: recorded_settings(name) for name in HERE.recorded},
        EXPERIMENT.reference.gpu in HERE.measured("hardware"),
    ),
)
NOTES.append(SELECTION.notes)
RECORDED_KINDS.extend([*REPLAY_KINDS, "deduplication"])
RECORDED_SETTINGS["simulation"] = recorded_settings
if SELECTION.shown:
    offer(COMPARISON)


def replayed_predictor(wildcards):
    """The files of its predictor, where there is one."""
    name = wildcards.trace
    return HERE.predictor_files(name) if name in HERE.predicted else []


def compare_strategies_parameters(wildcards):
    """The settings of the replays of a trace."""
    return as_json(replay_settings(wildcards.trace))


def count_deduplication_parameters(wildcards):
    """The settings of the counts of a trace."""
    return as_json(deduplication_settings(wildcards.trace))


def compared(wildcards):
    """The traces that a figure shows, and what the report claims."""
    return {"traces": HERE.titles(SELECTION.shown), "claimed": plain(settings("comparison").reported)}


def layers_shown(wildcards):
    """The traces that the figure of layers shows."""
    return {"traces": HERE.titles(SELECTION.shown)}


def sweeps_shown(wildcards):
    """The traces and the batch size that the figure of sweeps shows, and the slowdown that the report claims."""
    sizes = settings("comparison").sweep_batch_sizes
    claimed = EXPERIMENT.decode_step.claimed_slowdown
    return layers_shown(wildcards) | {"batch": sizes[len(sizes) // 2], "claimed_slowdown": claimed}


DRAWN["comparative_evaluation"] = Drawing(path_of("comparative_results"), compared)
DRAWN["expert_deduplication"] = Drawing(path_of("expert_deduplication_results"), compared)
DRAWN["layer_detail"] = Drawing(path_of("comparative_layers"), layers_shown)
DRAWN["strategy_sweeps"] = Drawing(path_of("strategy_sweeps"), sweeps_shown)


rule compare_strategies:
    """Serve the held-out tokens of one trace by every strategy, and sweep capacity and link."""
    input:
        code=with_strategies("workflow/studies/comparison/compare_strategies.py"),
        files=trace_files,
        predictor=replayed_predictor,
        gpus=GPU_FILE,
        measured=[path for path in PROFILE_FILES if path.parent.name == EXPERIMENT.reference.gpu],
        operators=OPERATOR_FILES,
        links=LINK_FILE,
    output:
        results="results/traces/{trace}/comparative.csv",
        layers="results/traces/{trace}/comparative_layers.csv",
        sweeps="results/traces/{trace}/strategy_sweeps.csv",
        prov=sidecars(*[f"results/traces/{{trace}}/{kind}.csv" for kind in REPLAY_KINDS]),
    log:
        "logs/compare_strategies/{trace}.log",
    benchmark:
        "benchmarks/compare_strategies/{trace}.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=compare_strategies_parameters,
    shell:
        JOB


rule count_deduplication:
    """Count what batches of one trace save because tokens share experts."""
    input:
        code=code("workflow/studies/comparison/count_deduplication.py"),
        files=trace_files,
    output:
        deduplication="results/traces/{trace}/deduplication.csv",
        prov=sidecars("results/traces/{trace}/deduplication.csv"),
    log:
        "logs/count_deduplication/{trace}.log",
    benchmark:
        "benchmarks/count_deduplication/{trace}.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=count_deduplication_parameters,
    shell:
        JOB


rule comparison:
    """Put the runs on all traces into one table each, and compute the three tables of report 004 from them."""
    input:
        code=code("workflow/studies/comparison/compute.py"),
        of_results=HERE.results_of(SELECTION.shown, "comparative"),
        of_layers=HERE.results_of(SELECTION.shown, "comparative_layers"),
        of_sweeps=HERE.results_of(SELECTION.shown, "strategy_sweeps"),
        of_deduplication=HERE.results_of(SELECTION.shown, "deduplication"),
    output:
        results=table("comparative_results"),
        deduplication=table("expert_deduplication_results"),
        layers=table("comparative_layers"),
        sweeps=table("strategy_sweeps"),
        strategies=table("table8_strategies"),
        savings=table("table9_expert_deduplication"),
        scaling=table("table10_batch_scaling"),
        prov=sidecars(*[found.path for found in COMPARISON.tables]),
    log:
        "logs/comparison.log",
    benchmark:
        "benchmarks/comparison.tsv"
    conda:
        "../../../envs/analysis.yaml"
    params:
        files=files,
        parameters=as_json({"claimed": plain(settings("comparison").reported)}),
    shell:
        JOB
