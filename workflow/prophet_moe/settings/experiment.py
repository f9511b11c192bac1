"""Settings that all studies share, config/experiment.yaml, and how a configuration is resolved.

These classes, and the settings class of every study, are the one source of the defaults, of the JSON schemas under
workflow/schemas/ and of the key table in docs/configuration.md; `prophet-moe config write` makes the latter two and a
test fails when any of them drifts.
"""

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, create_model, model_validator

from prophet_moe.errors import UserError
from prophet_moe.settings.fields import (
    LARGEST_BATCH,
    LARGEST_CONTEXT,
    LARGEST_MIB,
    LARGEST_RATIO,
    LARGEST_SPEED,
    Batches,
    Names,
    StudySettings,
)
from prophet_moe.settings.moved import refuse_moved
from prophet_moe.settings.scenario import CALIBRATED, REPORTED, Scenario
from prophet_moe.settings.style import Style, StyleFile
from prophet_moe.sources import Sources
from prophet_moe.validation import StrictModel, inconsistent, validate


class Reference(StrictModel):
    """The GPU and batch size that tables 1 and 4 and figures 1, 3 and 4 show."""

    gpu: str = "A100-80GB"
    """GPU of tables 1 and 4 and figures 1, 3 and 4, one of `gpus`."""
    batch_size: int = Field(default=16, gt=0, le=LARGEST_BATCH)
    """Batch size of tables 1 and 4 and figures 1 and 3, one of `batch_sizes`."""


class DecodeStep(StrictModel):
    """The decode step whose time is computed or simulated."""

    context_tokens: int = Field(default=4096, gt=0, le=LARGEST_CONTEXT)
    """Context length of each sequence in tokens, limited to the model's native context."""
    claimed_slowdown: float = Field(default=1.2, gt=1, le=LARGEST_RATIO)
    """Slowdown of a decode step with Prophet that the report claims (000:778)."""
    link: str = "pinned"
    """Way to copy experts in estimates of times: a name of config/links.yaml. Bounds take the datasheet's link."""


class Replay(StrictModel):
    """The simulation of recorded routing traces, with the times of a GPU."""

    timed_as: dict[str, str] = {
        "small-12x128-top1": "Switch-Base-128",
        "small-6x64-top8": "OLMoE-1B-7B",
        "small-6x8-top2": "Mixtral-8x7B",
    }
    """Timing model by trace: the model of config/models/ whose layer times the simulation uses for the trace. A trace
    that is not listed is timed with its own model."""
    copy_chunk_mb: float = Field(default=4.0, gt=0, le=LARGEST_MIB)
    """Preemption granularity of a transfer, MB: a demand transfer waits at most for this much of a running prefetch."""
    storage_gb_per_s: float = Field(default=7.0, gt=0, le=LARGEST_SPEED)
    """Bandwidth of the storage tier behind host memory in `prophet-moe sim run`, GB/s. The default is the speed of
    sequential reads of a PCIe 4.0 NVMe drive by its datasheet (Samsung 980 PRO)."""


RESERVED = ("data", "generated")
"""Names of folders next to those of the scenarios, which no scenario may have."""


class Collect(StrictModel):
    """The source of routing traces: the committed ones, or a new collection."""

    afresh: bool = False
    """Whether a build trains the models of the plan and records their traces, instead of reading resources/traces/."""
    plan: str = "config/collect.yaml"
    """File with the collection plan: the corpus, the models, and how they are trained and traced."""
    python: str = ".venv-gpu/bin/python"
    """Python interpreter that has PyTorch and Transformers (`make gpu` installs one)."""


class Experiment(StrictModel):
    """The science of the artifact: what is computed, for which models, GPUs and batches, under which scenarios."""

    name: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,62})?$")
    """Name of the run, for overlays. A named run writes all outputs to results/runs/<name>/. Without a name, a build
    writes them in place."""
    scenario: str = "calibrated"
    """Default scenario. Its outputs are at the top of figures/, tables/ and paper/generated/."""
    models: Literal["all"] | list[str] = "all"
    """Models of the grid: `all` models of config/models/, or a list of their names."""
    gpus: list[str] = Field(default=["V100-32GB", "A100-40GB", "A100-80GB", "H100-80GB"], min_length=1)
    """GPUs of the grid, which are keys of config/gpus.yaml."""
    too_large: list[str] = ["Jamba-1.5-Large"]
    """Models that are kept although no GPU of the grid holds their non-expert weights. Any other such model is an
    error."""
    batch_sizes: Batches = [1, 4, 8, 16, 32, 64]
    """Batch sizes of the grid: numbers of sequences that are decoded together."""
    traces: Names = ["small-12x128-top1", "small-6x64-top8", "small-6x8-top2"]
    """Routing traces, which are folders of resources/traces/. With `collect.afresh` they are models of the plan."""
    counts: list[str] = []
    """Folders of resources/traces/ that hold counts instead of a trace (`prophet-moe trace import counts`), at most one
    per model. Scenarios with `routing.variation: counts` use them."""
    collect: Collect = Collect()
    decode_step: DecodeStep = DecodeStep()
    replay: Replay = Replay()
    reference: Reference = Reference()
    scenarios: dict[str, Scenario] = {"calibrated": CALIBRATED, "reported": REPORTED}
    """Scenarios by name. Each has its own parameters."""
    build_scenarios: Literal["all"] | Names = "all"
    """Scenarios whose outputs are built: `all` of `scenarios`, or a list of names that includes the default one."""

    def built_scenarios(self) -> dict[str, Scenario]:
        """The scenarios to build, by name, in the order of their definition."""
        chosen = self.scenarios if self.build_scenarios == "all" else self.build_scenarios
        return {name: scenario for name, scenario in self.scenarios.items() if name in chosen}

    def selected_models(self) -> list[str] | None:
        """Names of the models to read, None for all."""
        return None if self.models == "all" else self.models

    @model_validator(mode="after")
    def _names_agree(self) -> "Experiment":
        for name in self.scenarios:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in RESERVED:
                raise inconsistent(
                    ("scenarios", name), "this name cannot be a folder next to data/; expected letters, digits and _"
                )
        if self.scenario not in self.scenarios:
            known = ", ".join(self.scenarios)
            raise inconsistent(("scenario",), f"got {self.scenario!r}, expected one of {known}", [("scenarios",)])
        chosen = [] if self.build_scenarios == "all" else self.build_scenarios
        for number, name in enumerate(chosen):
            if name not in self.scenarios:
                at = ("build_scenarios", number)
                raise inconsistent(at, unknown_name(name, self.scenarios), [("scenarios",)])
        if chosen and self.scenario not in chosen:
            problem = f"got {', '.join(chosen)}, expected the default scenario, {self.scenario}, among them"
            raise inconsistent(("build_scenarios",), problem, [("scenario",)])
        resting = [name for name, scenario in self.scenarios.items() if scenario.fits_counts]
        if resting and not self.counts:
            problem = f"got [], expected folders: variation of scenario {resting[0]} is counts"
            raise inconsistent(("counts",), problem, [("scenarios", resting[0])])
        for key in ("gpus", "batch_sizes", "counts"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise inconsistent((key,), f"got {values}, expected every value once")
        return self


def with_studies(classes: Mapping[str, type[StudySettings]]) -> type[Experiment]:
    """Return the class of the whole experiment: the shared keys, and `studies` with a section of each class."""
    sections = create_model(
        "Studies",
        __base__=StrictModel,
        __doc__="Settings of every study, by its name.",
        **{name: (kind, kind()) for name, kind in classes.items()},
    )
    return create_model("Experiment", __base__=Experiment, __doc__=Experiment.__doc__, studies=(sections, sections()))


class Settings(NamedTuple):
    """All that `snakemake --configfile` may change: the keys of the experiment, and `style`."""

    experiment: Experiment
    style: Style


def resolve(
    config: Mapping[str, Any],
    files: Sequence[Path],
    models: Collection[str],
    gpus: Collection[str],
    studies: Mapping[str, type[StudySettings]],
    traces: Callable[[Collect], Collection[str]] | None = None,
    counts: Collection[str] | None = None,
    figures: Collection[str] | None = None,
    engines: Collection[str] | None = None,
) -> Settings:
    """Validate a merged configuration, and the names of models, GPUs, traces, counts, figures and engines in it.

    `files` are the files it was merged from, in that order; an error names the last one that holds the key. `studies`
    are the settings classes of the studies by name. The other collections are the known names; of `traces`, `counts`,
    `figures` and `engines`, None leaves the check out. A mistake is a UserError.
    """
    sources = Sources(config, files)
    refuse_moved(config, sources.of, SEE_KEYS)

    science = {key: value for key, value in config.items() if key != "style"}
    experiment = validate(with_studies(studies), science, sources.of, SEE_KEYS)
    style = validate(StyleFile, {"style": config.get("style", {})}, sources.of, SEE_KEYS).style

    check_names("models", experiment.selected_models() or (), models, sources.of)
    check_names("gpus", experiment.gpus, gpus, sources.of)
    if counts is not None:
        for number, name in enumerate(experiment.traces):
            if name in counts:
                problem = f"traces[{number}]: {name!r} holds counts, expected a trace"
                raise UserError(sources.of(("traces", number)), problem, "List it under counts instead.")
        check_names("counts", experiment.counts, counts, sources.of)
    for name, scenario in experiment.scenarios.items() if engines is not None else ():
        _check_name(("scenarios", name, "engine"), scenario.engine, engines, sources.of)
    if traces is not None:
        check_names("traces", experiment.traces, traces(experiment.collect), sources.of)
    for key, allowed in (("gpu", experiment.gpus), ("batch_size", experiment.batch_sizes)):
        value = getattr(experiment.reference, key)
        if value not in allowed:
            where = sources.of(("reference", key), (f"{key}s",))
            shown = ", ".join(map(str, allowed))
            raise UserError(where, f"reference.{key}: got {value!r}, expected one of {shown}", SEE_KEYS)
    for trace, model in experiment.replay.timed_as.items():
        _check_name(("replay", "timed_as", trace), model, models, sources.of)
    for study, kind in studies.items():
        for keys, known in ((kind.named_models, models), (kind.named_gpus, gpus)):
            for key in keys:
                named = getattr(getattr(experiment.studies, study), key)
                check_names(f"studies.{study}.{key}", named, known, sources.of)
    for figure in style.figures if figures is not None else ():
        _check_name(("style", "figures", figure), figure, figures, sources.of)
    return Settings(experiment, style)


SEE_KEYS = "Every key is explained in docs/configuration.md."


def check_names(key: str, names: Sequence[str], known: Collection[str], file_of: Callable[..., str]) -> None:
    """Refuse a name under `key` that is not `known`; `file_of` finds the file that holds it."""
    for number, name in enumerate(names):
        _check_name((*key.split("."), number), name, known, file_of)


def _check_name(at: tuple, name: str, known: Collection[str], file_of: Callable[..., str]) -> None:
    if name not in known:
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")
        raise UserError(file_of(at), f"{key}: {unknown_name(name, known)}", SEE_KEYS)


def unknown_name(name: str, known: Collection[str]) -> str:
    """Say that a name is not `known`, and which one may have been meant."""
    near = difflib.get_close_matches(name, known, n=1)
    expected = f"did you mean {near[0]!r}" if near else f"expected one of {', '.join(known)}"
    return f"unknown name {name!r}; {expected}"
