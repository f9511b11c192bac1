"""Settings, names and helpers that all stages share."""

import json
import shutil
from dataclasses import asdict
from functools import cache
from pathlib import Path

from prophet_moe.collect.plan import read_plan
from prophet_moe.capacity.memory import covers
from prophet_moe.capacity.placement import unplaceable
from prophet_moe.catalog import load_gpus, load_models, model_names
from prophet_moe.errors import UserError, ends_in_one_line
from prophet_moe.provenance.code import code_of
from prophet_moe.provenance.sidecar import SUFFIX
from prophet_moe.routing.datasets import data_folders
from prophet_moe.runs import prepare
from prophet_moe.settings import resolve
from prophet_moe.sources import Sources

MODEL_FOLDER = Path("config/models")
GPU_FILE = Path("config/gpus.yaml")
NOTEBOOK_FOLDER = Path("notebooks")
TRACE_FOLDER = Path("resources/traces")
# A run by name works in another folder, so what the user said relative to this one is resolved here.
DATA_FOLDERS = data_folders()


def known_traces(collect):
    """Names of the traces that there are: the recorded ones, or the models that can be trained and traced."""
    if collect.afresh:
        return list(read_plan(Path(collect.plan)).models)
    return sorted(path.parent.name for path in TRACE_FOLDER.glob("*/trace.parquet"))


def known_counts():
    """Names of the folders that hold counts instead of a trace."""
    return sorted(path.parent.name for path in TRACE_FOLDER.glob("*/counts.npz"))


# In the order of merging; Snakemake itself lists the overlays of the command line first.
MERGED_FILES = [*CONFIG_FILES, *workflow.overwrite_configfiles]

# Every mistake in a configuration file ends here, in one line, before any job starts.
with ends_in_one_line():
    SETTINGS = resolve(
        config, MERGED_FILES, model_names(MODEL_FOLDER), load_gpus(GPU_FILE), known_traces, known_counts()
    )
    EXPERIMENT = SETTINGS.experiment
    MODELS = load_models(MODEL_FOLDER, EXPERIMENT.selected_models())
    GPUS = load_gpus(GPU_FILE, EXPERIMENT.gpus)
    TOO_LARGE = unplaceable(MODELS, GPUS, EXPERIMENT.scenarios[EXPERIMENT.scenario])
    for model, problem in TOO_LARGE.items():
        if model not in EXPERIMENT.too_large:
            advice = "Choose a larger GPU, leave the model out, or list it under too_large to show it all the same."
            raise UserError(str(MODEL_FOLDER / f"{model}.yaml"), problem, advice)
    if EXPERIMENT.collect.afresh and not shutil.which(EXPERIMENT.collect.python):
        where = Sources(config, MERGED_FILES).of(("collect", "afresh"), ("collect", "python"))
        problem = (
            f"collect.python: got {EXPERIMENT.collect.python!r}, which is no program here, but collect.afresh is set"
        )
        raise UserError(where, problem, "Run: make gpu; or name a Python that has PyTorch and Transformers.")
    BUILT = EXPERIMENT.built_scenarios()
    COVERED = {name: [model for model in MODELS if covers(scenario, MODELS[model])] for name, scenario in BUILT.items()}
    for name in BUILT:
        if not COVERED[name]:
            where = Sources(config, MERGED_FILES).of(("models",), ("scenarios", name))
            advice = "Leave the scenario out of build_scenarios, or add a model that the report covers to models."
            raise UserError(where, f"scenarios.{name}: has none of the models, {', '.join(MODELS)}", advice)
    RUN_FOLDER = prepare(EXPERIMENT.name) if EXPERIMENT.name else None

# Outputs of the default scenario lie at the top of figures/, tables/ and paper/generated/, those of any other scenario
# in a folder of its name. `{at}` is that place: empty, or "reported/".
PLACES = {name: "" if name == EXPERIMENT.scenario else f"{name}/" for name in BUILT}

# Captions (workflow/report/*.rst) read the resolved settings, defaults included, and the title of the scenario.
config.update(EXPERIMENT.model_dump(mode="json"))
config["title_at"] = {at: EXPERIMENT.scenarios[name].title for name, at in PLACES.items()}


wildcard_constraints:
    at=f"(?:{'|'.join(PLACES.values())})",  # an empty pattern would be none
    scenario="|".join(PLACES),


def everywhere(pattern, **values):
    """The pattern at the place of every scenario."""
    return expand(pattern, at=PLACES.values(), **values)


def scenario_name(wildcards):
    """The scenario whose outputs lie at {at}."""
    return wildcards.at.rstrip("/") or EXPERIMENT.scenario


def scenario_at(wildcards):
    """The parameters of the scenario whose outputs lie at {at}."""
    return EXPERIMENT.scenarios[scenario_name(wildcards)]


def sidecars(*outputs):
    """The provenance sidecars of outputs."""
    return [output + SUFFIX for output in outputs]


@cache
def code(script):
    """The script and every library module it imports: an edit of any of them rebuilds what it made."""
    return code_of(Path(script), Path("workflow"))


def as_json(parameters):
    """Parameters as one argument of a command line."""
    return json.dumps(parameters, sort_keys=True)
