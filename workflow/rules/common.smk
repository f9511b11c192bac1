"""Settings, the inventory, and helpers that all rules share.

REQUIRED INPUTS: config/, and the folders below resources/ that the settings name. OUTPUTS: none.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

from prophet_moe import messages
from prophet_moe import captions as readme
from prophet_moe import study as studies
from prophet_moe.capacity.memory import covers
from prophet_moe.capacity.placement import unplaceable
from prophet_moe.capacity.under_engine import read_engine
from prophet_moe.catalog import load_gpus, load_models, model_names
from prophet_moe.catalog.link import link_named, load_links
from prophet_moe.claims.bindings import tables_read
from prophet_moe.collect.plan import read_plan
from prophet_moe.errors import UserError, exit_on_user_error
from prophet_moe.files import write_text
from prophet_moe.inventory import PREDICTOR_FILES, TRACE_FILES, Inventory, known_counts, known_traces, located_all
from prophet_moe.provenance.code import code_of
from prophet_moe.provenance.sidecar import SUFFIX
from prophet_moe.routing.datasets import load_datasets, router_named
from prophet_moe.routing.importers import FORMATS
from prophet_moe.runs import prepare
from prophet_moe.settings.experiment import resolve
from prophet_moe.settings.scenario import IDEAL, Formats
from prophet_moe.sources import Sources

STARTED = time.time()

MODEL_FOLDER = Path("config/models")
GPU_FILE, LINK_FILE = Path("config/gpus.yaml"), Path("config/links.yaml")
OPERATOR_FILES = sorted(Path("resources/operators").glob("*.json"))
"""Fitted operators and constants, which estimates of times rest on."""
ENGINE_FOLDER, MODEL_NAMES = Path("config/engines"), Path("config/model_names.yaml")
DATASET_FILE = Path("config/datasets.yaml")
TRACE_FOLDER = Path("resources/traces")
STRATEGY_FOLDER = Path("workflow/prophet_moe/offload/strategies")

with exit_on_user_error():
    STUDIES = studies.load_studies()

FIGURES = {figure.name: figure for study in STUDIES.values() for figure in study.figures}
TABLES = {table.name: table for study in STUDIES.values() for table in study.tables}
STUDY_OF = {output.path: study for study in STUDIES.values() for output in (*study.tables, *study.figures)}


def traces_of(collect):
    """Names of the traces that there are: the recorded ones, or the models that can be trained and traced."""
    return list(read_plan(Path(collect.plan)).models) if collect.afresh else known_traces(TRACE_FOLDER)


def engine_files(scenario):
    """The profile of a scenario's engine and the names of models; none where the engine is ideal."""
    engine = EXPERIMENT.scenarios[scenario].engine
    return [] if engine == IDEAL else [ENGINE_FOLDER / f"{engine}.yaml", MODEL_NAMES]


# In the order of merging; Snakemake itself lists the overlays of the command line first.
MERGED_FILES = [*CONFIG_FILES, *workflow.overwrite_configfiles]

# Every mistake in a configuration file ends here, in one line, before any job starts.
with exit_on_user_error():
    SETTINGS = resolve(
        config,
        MERGED_FILES,
        model_names(MODEL_FOLDER),
        load_gpus(GPU_FILE),
        {name: study.settings for name, study in STUDIES.items()},
        traces_of,
        known_counts(TRACE_FOLDER),
        FIGURES,
        model_names(ENGINE_FOLDER),
    )
    EXPERIMENT = SETTINGS.experiment
    DEFAULT = EXPERIMENT.scenarios[EXPERIMENT.scenario]
    MODELS = load_models(MODEL_FOLDER, EXPERIMENT.selected_models())
    for model, spec in MODELS.items():
        if spec.architecture.moe is None:
            advice = "Leave it out of models in config/experiment.yaml; prophet-moe capacity answers for it."
            raise UserError(str(MODEL_FOLDER / f"{model}.yaml"), "is dense, expected a model with experts", advice)
    GPUS = load_gpus(GPU_FILE, EXPERIMENT.gpus)
    link_named(EXPERIMENT.decode_step.link, load_links(LINK_FILE))
    TOO_LARGE = unplaceable(MODELS, GPUS, DEFAULT, read_engine(engine_files(EXPERIMENT.scenario)))
    for model, problem in TOO_LARGE.items():
        if model not in EXPERIMENT.too_large:
            advice = "Choose a larger GPU, leave the model out, or list it under too_large to show it all the same."
            raise UserError(str(MODEL_FOLDER / f"{model}.yaml"), problem, advice)
    if EXPERIMENT.collect.afresh and not shutil.which(EXPERIMENT.collect.python):
        where = Sources(config, MERGED_FILES).of(("collect", "afresh"), ("collect", "python"))
        problem = f"collect.python: got {EXPERIMENT.collect.python!r}, which is not an installed program, but collect.afresh is set"
        raise UserError(where, problem, "Run: make gpu; or name a Python that has PyTorch and Transformers.")
    BUILT = EXPERIMENT.built_scenarios()
    COVERED = {name: [model for model in MODELS if covers(scenario, MODELS[model])] for name, scenario in BUILT.items()}
    for name in BUILT:
        if not COVERED[name]:
            where = Sources(config, MERGED_FILES).of(("models",), ("scenarios", name))
            advice = "Leave the scenario out of build_scenarios, or add a model that the report covers to models."
            raise UserError(where, f"scenarios.{name}: has none of the models, {', '.join(MODELS)}", advice)
    PLAN = read_plan(Path(EXPERIMENT.collect.plan))
    KNOWN_DATA = load_datasets(DATASET_FILE)
    ROUTING_DATA = {name: data for name, data in KNOWN_DATA.datasets.items() if data.kind == "routing"}
    HERE = Inventory(
        traces=tuple(EXPERIMENT.traces),
        afresh=EXPERIMENT.collect.afresh,
        plan=PLAN,
        listed=ROUTING_DATA,
        gpus=tuple(EXPERIMENT.gpus),
        python=EXPERIMENT.collect.python,
        elsewhere=located_all(ROUTING_DATA),
    )
    RUN_FOLDER = prepare(EXPERIMENT.name) if EXPERIMENT.name else None

MODEL_FILES = [MODEL_FOLDER / f"{name}.yaml" for name in MODELS]
PROFILE_FOLDER, MEMORY_FOLDER = Path("resources/hardware"), Path("resources/memory")
PROFILE_FILES = HERE.measurement_files("hardware", HERE.measured("hardware"))
"""Files of every measured profile."""
TIMES = f"{'measured on some GPUs, on the others ' if PROFILE_FILES else ''}estimated from what others measured"
"""What captions say of the times of simulated steps."""

# Outputs of the default scenario lie at the top of figures/, tables/ and paper/generated/, those of any other scenario
# in a folder of its name. `{scenario_dir}` is that folder: empty, or "reported/".
SCENARIO_DIRS = {name: "" if name == EXPERIMENT.scenario else f"{name}/" for name in BUILT}
GRID = f"results/{EXPERIMENT.scenario}/grid.parquet"
"""The capacity grid of the default scenario."""

TARGETS, ESSENTIALS, NOTES = [], [], []
"""What a build makes; what `essentials` makes; functions whose lines a user should read before. Studies add theirs."""
RECORDED_KINDS, RECORDED_SETTINGS = [], {}
"""Kinds of results about a trace that can be recorded, and functions of its name that say what they depend on."""


def no_others(wildcards):
    """Nothing besides the table that a figure shows."""
    return []


def no_parameters(wildcards):
    """No parameters besides looks."""
    return {}


class Drawing(NamedTuple):
    """What the notebook of a figure is given."""

    data: str
    """Path of the table that it shows."""
    parameters: Callable
    """Function of the wildcards: its parameters besides looks."""
    others: Callable = no_others
    """Function of the wildcards: what it shows besides."""
    of_scenario: bool = False
    """Whether its numbers rest on a scenario."""


DRAWN = {}
"""Drawings by the name of the figure. Studies add theirs."""


wildcard_constraints:
    scenario_dir=f"(?:{'|'.join(SCENARIO_DIRS.values())})",  # an empty pattern would be none
    scenario="|".join(SCENARIO_DIRS),
    trace="|".join([*HERE.traces, *HERE.present]),


def for_every_scenario(pattern, **values):
    """The pattern in the folder of every scenario."""
    return expand(pattern, scenario_dir=SCENARIO_DIRS.values(), **values)


def scenario_name(wildcards):
    """The scenario whose outputs lie in {scenario_dir}."""
    return wildcards.scenario_dir.rstrip("/") or EXPERIMENT.scenario


def scenario_of(wildcards):
    """The parameters of the scenario whose outputs lie in {scenario_dir}."""
    return EXPERIMENT.scenarios[scenario_name(wildcards)]


def settings(study):
    """The settings of a study, typed."""
    return getattr(EXPERIMENT.studies, study)


JOB = "python -m prophet_moe.provenance.job {input.code[0]:q} {params.files:q} {params.parameters:q} > {log:q} 2>&1"
"""Runs the rule's script, the first of its code, on its files and parameters, and writes the sidecars."""
NONE = "{}"
"""No parameters."""


def files(wildcards, input, output):
    """The named inputs and outputs of a job. Parameters are kept apart: a function of files is no rerun trigger."""
    return json.dumps({"inputs": named(input), "outputs": named(output)})


def named(paths):
    """The paths of a job by name; a name of several holds a list."""
    return {name: given if isinstance(given, str) else list(given) for name, given in paths.items()}


def as_json(parameters):
    """Parameters as one argument of a command line."""
    return json.dumps(parameters, sort_keys=True)


def plain(model, **selection):
    """Settings as JSON-like values."""
    return model.model_dump(mode="json", **selection)


@cache
def code(script):
    """A script or notebook and every module it imports: an edit of any of them rebuilds what it made."""
    with exit_on_user_error():
        return code_of(Path(script), Path("workflow"))


def sidecars(*outputs):
    """The provenance sidecars of outputs."""
    return [output + SUFFIX for output in outputs]


@cache
def with_strategies(script):
    """The code of a script, and every strategy: they are found by their folder."""
    strategies = [module for path in sorted(STRATEGY_FOLDER.glob("*.py")) for module in code(path)]
    return list(dict.fromkeys([*code(script), *strategies]))


def path_of(table):
    """The path of a study's table, by its name."""
    return TABLES[table].path


def built(table):
    """The path of a study's table in a list, empty where a build does not make it."""
    path = path_of(table)
    return [path] if path in TARGETS else []


def finished_tables(bindings):
    """Paths of the tables that the bindings of a file read, by name, among those that this build makes."""
    made = {path.removeprefix("tables/").replace("data/", ""): path for path in TARGETS if path.endswith(".csv")}
    return {name: made[f"{name}.csv"] for name in tables_read(Path(bindings)) if f"{name}.csv" in made}


def trace_files(wildcards):
    """The files of a trace."""
    return HERE.trace_files(wildcards.trace)


def predictor_files(wildcards):
    """The files of the predictor of a trace."""
    return HERE.predictor_files(wildcards.trace)


def trace_parameters(wildcards):
    """What tables call a trace."""
    return as_json({"name": HERE.title(wildcards.trace)})


def offer(study, tables=None, figures=None, essential=False):
    """Add outputs of a study to those that a build makes: by default all of its tables and figures."""
    paths = [table.path for table in study.tables if tables is None or table.name in tables]
    drawn = [figure for figure in study.figures if figures is None or figure.name in figures]
    paths += [f"{figure.path}.{format}" for figure in drawn for format in ("pdf", "png")]
    added = [path for pattern in paths for path in for_every_scenario(pattern)]
    TARGETS.extend(dict.fromkeys(added))
    ESSENTIALS.extend(dict.fromkeys(added) if essential else [])


def caption(output, scenario_dir=""):
    """The caption of a study's table or figure, with the values of the settings and of the scenario in its place."""
    at = EXPERIMENT.scenarios[scenario_dir.rstrip("/") or EXPERIMENT.scenario]
    here = {"title": at.title, "basis": at.basis, "default": scenario_dir == ""}
    here |= {"measured": bool(PROFILE_FILES), "times": TIMES}
    return readme.caption(STUDY_OF[output.path].id, output.path, config | here)


def captions(outputs):
    """The captions of outputs by their name and the folder of a scenario, as the templates of the report read them."""
    return {output.name: {at: caption(output, at) for at in SCENARIO_DIRS.values()} for output in outputs}


def captioned(name):
    """A file that finds the caption of a table among those of `config`, as Snakemake's report wants it."""
    path = Path("results/captions") / f"{name}.rst"
    text = f"{{{{ snakemake.config.table_captions['{name}'][snakemake.wildcards.get('scenario_dir', '')] }}}}\n"
    if not path.exists() or path.read_text() != text:
        write_text(path, text)
    return str(path.absolute())


def table(name):
    """The path of a study's table, marked for the report."""
    labels = {"item": name.replace("_", " "), "scenario": "{scenario_dir}" if "{" in path_of(name) else "all"}
    category = "Tables" if name.startswith("table") else "Data"
    return report(path_of(name), caption=captioned(name), category=category, labels=labels)


def drawn(study, key, scenario):
    """The models that a figure draws: those of a study's list that a scenario has, else those of its default list."""
    default = type(settings(study)).model_fields[key].default
    return studies.shown(getattr(settings(study), key), default, COVERED[scenario])


def notes():
    """What a user should know before a build: models that no GPU can hold, what is missing, how long training takes."""
    unfit = [f"note: {model}: {problem}; its rows show fit state `neither`" for model, problem in TOO_LARGE.items()]
    added = [line for lines in NOTES for line in lines()]
    return [*unfit, *other_models(), *HERE.notes(), *added, *HERE.training_minutes(TRACE_FOLDER)]


def other_models():
    """One line for each list of models of a study that a scenario cannot draw whole."""
    lists = [(study, key) for study in STUDIES.values() for key in study.settings.named_models]
    shown = [
        (f"{study.id}.{key}", name, getattr(settings(study.id), key), drawn(study.id, key, name))
        for study, key in lists
        for name in (BUILT if any(figure.by_scenario for figure in study.figures) else [EXPERIMENT.scenario])
    ]
    found = [messages.other_models(*each, list(MODELS)) for each in shown]
    return [line for line in found if line]
