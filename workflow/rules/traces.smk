"""Which routing traces there are, where they lie, and what the rules about them depend on."""

from dataclasses import asdict

from prophet_moe.documents import read_json
from prophet_moe.routing.importers import FORMATS
from prophet_moe.routing.nearest import Candidate, source_of
from prophet_moe.routing.datasets import architecture_named, how_to_get, load_datasets, located, router_named
from prophet_moe.routing.store import phase_of, title_of

COLLECTED_FOLDER = Path("results/traces")
DATASET_FILE = Path("config/datasets.yaml")

with ends_in_one_line():
    PLAN = read_plan(Path(EXPERIMENT.collect.plan))
    KNOWN_DATA = load_datasets(DATASET_FILE)

TRACES = EXPERIMENT.traces
TRACE_FILES = ("trace.parquet", "metadata.json", "SHA256SUMS")
PREDICTOR_FILES = ("predictor.safetensors", "metadata.json", "SHA256SUMS")
WHEELS = [f"results/collect/corpus/{package.file}" for package in PLAN.corpus.packages.values()]

# Other people's routing data: present on this machine, or known by the statistics recorded of it, or missing.
RECORDED_STATISTICS = Path("resources/statistics")
ROUTING_DATA = {name: data for name, data in KNOWN_DATA.datasets.items() if data.kind == "routing"}
DATASET_PATHS = {name: located(name, data, DATA_FOLDERS) for name, data in ROUTING_DATA.items()}
PRESENT = [name for name, paths in DATASET_PATHS.items() if paths]
RECORDED = [name for name in ROUTING_DATA if name not in PRESENT and (RECORDED_STATISTICS / name).is_dir()]
DATASETS = [name for name in ROUTING_DATA if name in (*PRESENT, *RECORDED)]


def router_of(model):
    """The router of a model of the project, selected by `models` or not, or of the list."""
    models = load_models(MODEL_FOLDER, [model]) if model in model_names(MODEL_FOLDER) else MODELS
    return router_named(model, models, KNOWN_DATA)


with ends_in_one_line():
    ROUTERS = {name: router_of(ROUTING_DATA[name].model) for name in PRESENT}


STATISTICS = (
    *("statistics", "law_fits", "law_residuals", "prediction", "predicted_sets", "discrimination"),
    *("comparative", "comparative_layers", "strategy_sweeps", "deduplication"),
)
"""What is computed of a trace and can be recorded, so that machines without the data have it."""


wildcard_constraints:
    trace="|".join(TRACES),
    dataset="|".join(PRESENT) or "none",
    described="|".join([*TRACES, *PRESENT]),
    recorded="|".join(RECORDED) or "none",
    kind="|".join(STATISTICS),


def trace_folder(name):
    """Where the trace of that name lies, or will lie."""
    if name in DATASETS:
        return Path("results/datasets") / name
    return (COLLECTED_FOLDER if EXPERIMENT.collect.afresh else TRACE_FOLDER) / name


def metadata_of(name):
    """What a recorded trace says of itself; nothing of one that the build collects or imports itself."""
    recorded = (
        read_json(trace_folder(name) / "metadata.json") if name in TRACES and not EXPERIMENT.collect.afresh else {}
    )
    return recorded if recorded.get("kind") == "trace" else {}


def title(name):
    """What tables and figures call a trace."""
    if name in ROUTING_DATA:
        return title_of(name, ROUTING_DATA[name].phase)
    return title_of(name, phase_of(metadata_of(name))) if metadata_of(name) else name


def of_traces(names, kind):
    """The results of one kind about some traces."""
    return [f"results/routing/{name}/{kind}.csv" for name in names]


def predictor_folder(name):
    """Where the predictor that was trained on a trace lies, or will lie."""
    return Path("results/predictors" if EXPERIMENT.collect.afresh and name in TRACES else "resources/predictors") / name


def predictor_files(wildcards):
    """The files of the predictor of a trace."""
    return [predictor_folder(wildcards.described) / name for name in PREDICTOR_FILES]


def with_predictor(names):
    """Those of the traces that have a predictor, or will have one."""
    return [name for name in names if EXPERIMENT.collect.afresh or (predictor_folder(name) / "metadata.json").exists()]


def without_predictor():
    """One line for each trace that no predictor was trained on."""
    return [
        f"note: no predictor was trained on {name}, it is left out of tables/data/prediction.csv; to train one: "
        f"{EXPERIMENT.collect.python} -m prophet_moe.collect predictor {trace_folder(name)} --out {predictor_folder(name)}"
        for name in (*TRACES, *PRESENT)
        if name not in PREDICTED and name in FITTED
    ]


def trace_files(wildcards):
    """The files of a trace that is described or replayed."""
    trace = wildcards.simulated if "simulated" in wildcards.keys() else wildcards.described
    return [trace_folder(trace) / name for name in TRACE_FILES]


def described_parameters(wildcards):
    """The trace's name in the table."""
    return as_json({"name": title(wildcards.described)})


def dataset_files(wildcards):
    """The files of a dataset that is here."""
    return DATASET_PATHS[wildcards.dataset]


def dataset_code(wildcards):
    """The code behind an imported dataset: the script, and the importer of the dataset's format."""
    importer = FORMATS[ROUTING_DATA[wildcards.dataset].importer]
    modules = code(f"workflow/prophet_moe/routing/importers/{importer}.py")
    return list(dict.fromkeys([*code("workflow/scripts/import_dataset.py"), *modules]))


def dataset_parameters(wildcards):
    """What is listed about a dataset, and the router of its model."""
    dataset, router = ROUTING_DATA[wildcards.dataset].model_dump(), asdict(ROUTERS[wildcards.dataset])
    return as_json({"name": wildcards.dataset, "dataset": dataset, "router": router})


def corpus_parameters(wildcards):
    """The packages of the corpus."""
    return as_json({name: package.sha256 for name, package in PLAN.corpus.packages.items()})


def model_parameters(wildcards):
    """All that a trained model and its prompts depend on."""
    model = asdict(PLAN.models[wildcards.trace])
    return as_json({"corpus": asdict(PLAN.corpus), "vocabulary": PLAN.vocabulary, "model": model})


def trace_options(wildcards):
    """Options of the collector for one of the plan's models."""
    plan = PLAN.models[wildcards.trace].trace
    return (
        f"--decode text --decode-tokens {plan.decode_tokens} --batch {plan.batch} --hidden {plan.hidden_tokens}"
        f" --dtype float32 --licence Apache-2.0"
    )


def expected_minutes():
    """One line for each model that will be trained: how long that took on the machine of the recorded trace."""
    lines = []
    for name in TRACES if EXPERIMENT.collect.afresh else []:
        recorded = TRACE_FOLDER / name / "metadata.json"
        if recorded.exists() and not (Path("results/collect") / name / "training.json").exists():
            training = read_json(recorded)["notes"]["training"]
            machine = training["machine"]
            lines.append(
                f"note: training {name} took {training['seconds'] / 60:.0f} minutes on {machine.get('cpu', machine['device'])}"
                f" with {machine['cpu_threads']} threads"
            )
    return lines


def missing_datasets():
    """One line for each dataset that is not here."""
    instead = {
        name: "its recorded statistics are used" if name in RECORDED else "it is left out" for name in ROUTING_DATA
    }
    return [
        f"note: dataset {name} is not here, {instead[name]}; to get it: {how_to_get(name, data)}"
        for name, data in ROUTING_DATA.items()
        if name not in PRESENT
    ]


def of_prefill():
    """One line for each trace that decodes nothing."""
    return [
        f"note: {name} holds no decode token: what is said of it is of prefill, and it is called {title(name)}"
        for name in (*TRACES, *DATASETS)
        if title(name) != name
    ]


def too_few_to_fit():
    """One line for each trace of so few sequences, or texts, that no law can be fitted to some and judged by others."""
    return [
        f"note: {name} holds {too_few(name)}: nothing is fitted to it or replayed on it, it is in {ROUTING_TABLE} alone"
        for name in TRACES
        if name not in FITTED
    ]


def too_few(name):
    """What a trace has too few of; nothing of one that can be fitted to."""
    if HELD.get(name, LEAST_FITTED) < LEAST_FITTED:
        return f"{told(HELD[name])} without repetition, expected at least {LEAST_FITTED}"
    if TEXTS.get(name, LEAST_TEXTS) < LEAST_TEXTS:
        return f"{told(HELD[name])} of one text, expected at least {LEAST_TEXTS} texts"
    return ""


def told(sequences):
    """A number of sequences in words."""
    return f"{sequences} sequence{'' if sequences == 1 else 's'}"


def sequences_of(metadata):
    """Sequences of a recorded trace without repetition; without duplicates, too, where its metadata tells of them."""
    if "unrepeated" in metadata:
        return metadata["unrepeated"]["sequences"]
    flagged = sum(bool(note.get("has_repetition")) for note in metadata["notes"].get("sequences", []))
    return metadata["sequences"] - flagged


RECORDED_METADATA = {name: metadata_of(name) for name in TRACES if metadata_of(name)}
HELD = {name: sequences_of(metadata) for name, metadata in RECORDED_METADATA.items()}
TEXTS = {name: found["unrepeated"]["texts"] for name, found in RECORDED_METADATA.items() if "unrepeated" in found}
# Either half has a batch of two, and its text for itself.
LEAST_FITTED, LEAST_TEXTS = 4, 2
FITTED = [name for name in (*TRACES, *DATASETS) if not too_few(name)]
PREDICTED = [*with_predictor([*TRACES, *PRESENT]), *RECORDED]
