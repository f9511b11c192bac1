"""Which traces strategies are replayed on, with the times of which model, and what the rules about them depend on."""

SIMULATION_KINDS = ("comparative", "comparative_layers", "strategy_sweeps", "deduplication")
STRATEGY_FOLDER = Path("workflow/prophet_moe/offload/strategies")


def timed_model(name):
    """The architecture whose layers a trace is timed with, as JSON-like values; None where none is known."""
    model = EXPERIMENT.simulation.timed_as.get(name) or metadata_of(name).get("model")
    if model is None and name in ROUTING_DATA:
        model = ROUTING_DATA[name].model
    return architecture_named(model, MODEL_FOLDER, KNOWN_DATA)


with exit_on_user_error():
    TIMED_MODELS = {name: timed_model(name) for name in (*TRACES, *PRESENT, *RECORDED)}

# Half of the sequences are learned from, the other half must hold one sample.
LEAST_SEQUENCES = 2 * EXPERIMENT.simulation.sequences
SHORT = {name: sequences for name, sequences in HELD.items() if sequences < LEAST_SEQUENCES}
REPLAYED = [name for name in (*TRACES, *PRESENT) if TIMED_MODELS[name] and name not in SHORT]


def replay_settings(name):
    """What the runs on a trace depend on besides the trace, its predictor and the GPU's profile."""
    elsewhere = {"timed_as", "dedup_samples", "storage_gb_per_s"}
    elsewhere |= {key for key in type(EXPERIMENT.simulation).model_fields if key.startswith("frontier_")}
    elsewhere |= {"slowdown_limits"}
    return {
        "name": title(name),
        "gpu": EXPERIMENT.reference.gpu,
        "architecture": TIMED_MODELS[name],
        "context": EXPERIMENT.decode_step.context_tokens,
        "precision": precision(),
        "simulation": EXPERIMENT.simulation.model_dump(mode="json", exclude=elsewhere),
        "profiles": str(HARDWARE_FOLDER),
    }


def deduplication_settings(name):
    """What the counts of a trace depend on besides the trace."""
    keys = {"batch_sizes", "dedup_samples"}
    return {"name": title(name), "simulation": EXPERIMENT.simulation.model_dump(mode="json", include=keys)}


def precision():
    """The precision of weights and caches in the default scenario, as JSON-like values."""
    return asdict(EXPERIMENT.scenarios[EXPERIMENT.scenario].precision)


def replay_record(name):
    """The settings that what is recorded of a dataset's replays depends on."""
    return {"compare_strategies": replay_settings(name), "count_deduplication": deduplication_settings(name)}


def recorded_settings(wildcards):
    """The settings to be recorded of every dataset that is here."""
    return as_json({name: replay_record(name) for name in PRESENT})


def replayed_alike(name):
    """Whether what was recorded of a dataset was computed with the settings of this run."""
    recorded = RECORDED_STATISTICS / name / "simulation.json"
    # They rest on the GPU's datasheet: once it is measured, the dataset must be replayed again.
    alike = recorded.exists() and read_json(recorded) == replay_record(name)
    return alike and EXPERIMENT.reference.gpu not in MEASURED_GPUS


REPLAYED_ELSEWHERE = [name for name in RECORDED if replayed_alike(name)]
SIMULATED = [*REPLAYED, *REPLAYED_ELSEWHERE]

# Routing that stands in for models lies in the project, so that the frontier is the same on every machine.
CALIBRATED_FOLDER = Path("resources/routing")


def stand_ins():
    """By routing that stands in for any, the models that it stands in for."""
    traces = [name for name in EXPERIMENT.simulation.frontier_traces if name in TRACES and name in PREDICTED]
    shapes = {name: trace_shape(name) for name in traces}
    fitted = {path.stem: read_json(path) for path in sorted(CALIBRATED_FOLDER.glob("*.json"))}
    calibrated = {
        name: Candidate(found["experts"], found["top_k"], len(found["fitted"]) + len(found["left_out"]))
        for name, found in fitted.items()
    }
    models = {}
    for name, model in MODELS.items():
        moe = model.architecture.moe
        models.setdefault(source_of(moe.experts, moe.top_k, shapes, calibrated), []).append(name)
    return models


def trace_shape(name):
    """E and k of a trace: of a model of the plan where it is collected afresh."""
    if EXPERIMENT.collect.afresh:
        arguments = PLAN.models[name].config
        return arguments.get("num_experts", arguments.get("num_local_experts")), arguments["num_experts_per_tok"]
    metadata = metadata_of(name)
    return metadata["experts"], metadata["top_k"]


with exit_on_user_error():
    STAND_INS = stand_ins()

config["simulated"] = [title(name) for name in SIMULATED]


wildcard_constraints:
    simulated="|".join(REPLAYED) or "none",
    source="|".join(STAND_INS),


def of_simulated(kind):
    """The results of one kind about all traces that are replayed."""
    return [f"results/routing/{name}/{kind}.csv" for name in SIMULATED]


def without_times():
    """One line for each trace that cannot be replayed; those with nothing fitted have theirs."""
    short = [
        f"note: {name} holds {told(sequences)} without repetition, expected at least {LEAST_SEQUENCES}, twice "
        f"simulation.sequences: it is left out of {COMPARATIVE_TABLE}; collect more, or lower simulation.sequences"
        for name, sequences in SHORT.items()
        if name in FITTED
    ]
    return (
        short
        + [
            f"note: no model is listed whose layers {name} could be timed with, it is left out of {COMPARATIVE_TABLE}; "
            "add it to simulation.timed_as"
            for name in (*TRACES, *PRESENT)
            if not TIMED_MODELS[name] and name not in SHORT
        ]
        + [
            f"note: {name} was replayed with other settings and is not here, it is left out of {COMPARATIVE_TABLE}"
            for name in RECORDED
            if name not in REPLAYED_ELSEWHERE
        ]
    )


def strategy_code(wildcards):
    """The code behind the comparison."""
    return with_strategies("workflow/scripts/compare_strategies.py")


def frontier_code(wildcards):
    """The code behind the frontier."""
    return with_strategies("workflow/scripts/replay_frontier.py")


def with_strategies(script):
    """The script, what it imports, and every strategy: they are found by their folder."""
    strategies = [module for path in sorted(STRATEGY_FOLDER.glob("*.py")) for module in code(path)]
    return list(dict.fromkeys([*code(script), *strategies]))


def trace_of_source(wildcards):
    """The files of the trace that stands in, where it is one."""
    return [trace_folder(wildcards.source) / name for name in TRACE_FILES if wildcards.source in TRACES]


def predictor_of_source(wildcards):
    """The files of the predictor of the trace that stands in, where it is one."""
    return [predictor_folder(wildcards.source) / name for name in PREDICTOR_FILES if wildcards.source in TRACES]


def calibrated_of_source(wildcards):
    """The file of the calibrated routing that stands in, where it is no trace."""
    return [] if wildcards.source in TRACES else [CALIBRATED_FOLDER / f"{wildcards.source}.json"]


def discrimination_of_source(wildcards):
    """What was measured of the predictor that foretells calibrated routing."""
    predictor = EXPERIMENT.simulation.frontier_predictor
    return [] if wildcards.source in TRACES else [f"results/routing/{predictor}/discrimination.csv"]


def models_of_source(wildcards):
    """The files of the models that a routing stands in for."""
    return [MODEL_FOLDER / f"{name}.yaml" for name in STAND_INS[wildcards.source]]


def predictor_if_trained(wildcards):
    """The files of the predictor of a trace, where there is one."""
    name = wildcards.simulated
    return [predictor_folder(name) / file for file in PREDICTOR_FILES] if name in PREDICTED else []


def measured_reference(wildcards):
    """The measured profile of the reference GPU, where there is one."""
    gpu = EXPERIMENT.reference.gpu
    return sorted((HARDWARE_FOLDER / gpu).glob("*")) if gpu in MEASURED_GPUS else []


def simulation_parameters(wildcards):
    """The settings of the runs on a trace."""
    return as_json(replay_settings(wildcards.simulated))


def deduplication_parameters(wildcards):
    """The settings of the counts of a trace."""
    return as_json(deduplication_settings(wildcards.simulated))


def frontier_parameters(wildcards):
    """What the frontier on a trace depends on besides files."""
    sizes = ("shares", "samples", "sequences", "largest_batch", "tokens", "layers")
    keys = {f"frontier_{key}" for key in sizes} | {"copy_chunk_mb"}
    return as_json(
        {
            "name": wildcards.source,
            "context": EXPERIMENT.decode_step.context_tokens,
            "precision": precision(),
            "simulation": EXPERIMENT.simulation.model_dump(mode="json", include=keys),
            "profiles": str(HARDWARE_FOLDER),
        }
    )


def gained_parameters(wildcards):
    """What the memory of the frontier depends on besides the grid."""
    return as_json(
        {
            "scenario": EXPERIMENT.scenarios[EXPERIMENT.scenario].model_dump(mode="json"),
            "slowdown_limits": sorted(
                {*EXPERIMENT.simulation.slowdown_limits, EXPERIMENT.decode_step.claimed_slowdown}
            ),
        }
    )
