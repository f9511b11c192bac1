"""Memory and time under varied assumptions: one at a time, two at a time, and all together by Sobol's indices."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from math import isnan, nan

import numpy as np
import pandas as pd
from SALib.analyze import sobol as shares_by_sobol
from SALib.sample import sobol as samples_by_sobol

from prophet_moe.capacity.configured import read_configured
from prophet_moe.capacity.context import cache_columns
from prophet_moe.capacity.memory import ModelMemory, model_memory
from prophet_moe.capacity.sweep import BLOCK_ROWS, INPUTS, evaluate, resident_experts
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.catalog.link import MICROSECOND, LinkSpec, link_named, load_links
from prophet_moe.hardware.estimate import Estimator, estimate_step, read_estimators
from prophet_moe.params import moe_layers
from prophet_moe.params.counts import encoder_moe_layers
from prophet_moe.routing.law import power_law, unique_experts
from prophet_moe.routing.popularity_cv import PopularityCV
from prophet_moe.routing.urn import ROUNDING_GUARD
from prophet_moe.settings.experiment import DecodeStep
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import write_table
from prophet_moe.units import GB, MIB
from studies.sensitivity.inputs import Floats, Input, changed
from studies.sensitivity.study import SENSITIVITY, SensitivitySettings

GAINED, SLOWDOWN = "gained_share", "slowdown"
OUTCOMES = (GAINED, SLOWDOWN)
ALL = "all"
OWN_LAW = "scenario's law"
MAPS = (
    (SLOWDOWN, "hit_rate", "batch_size"),
    (GAINED, "law", "batch_size"),
    (GAINED, "weight_format", "gpu"),
)
"""Two-way maps: the outcome, the input of the rows and that of the columns."""


@dataclass(frozen=True)
class Study:
    """What all models share: the reference, and what inputs stand for."""

    gpus: Mapping[str, GpuSpec]
    batch_sizes: Sequence[int]
    reference_gpu: str
    reference_batch: int
    scenario: Scenario
    link: LinkSpec
    step: DecodeStep
    settings: SensitivitySettings

    @property
    def chunks(self) -> list[int]:
        """Return the prefill chunks, that of the scenario among them."""
        return sorted({*self.settings.prefill_chunk_tokens, self.scenario.activation.prefill_chunk_tokens})

    def inputs(self) -> tuple[Input, ...]:
        """Return the inputs, in the order of the samples."""
        s = self.settings
        activations = [share / s.activation_share[1] for share in (s.activation_share[0], s.activation_share[-1])]
        return (
            Input("hit_rate", (min(s.hit_rate), max(s.hit_rate)), s.hit_rate[0], between=True),
            Input("link_share", (self.link.lowest_share, self.link.highest_share), self.link.share, between=True),
            Input("batch_size", self.batch_sizes, list(self.batch_sizes).index(self.reference_batch)),
            Input("gpu", list(self.gpus), list(self.gpus).index(self.reference_gpu)),
            Input("weight_format", s.weight_formats, _place(self.scenario.precision, s.weight_formats)),
            Input("kv_format", s.kv_formats, _place(self.scenario.kv_format, s.kv_formats)),
            Input("law", (OWN_LAW, *s.exponent), 0),
            Input("law_interval", (-1.0, 1.0), 0.0, between=True),
            Input("usable_memory", s.usable_memory_share, self.scenario.usable_memory_share, between=True),
            Input("reserve_mib", s.runtime_reserve_mib, self.scenario.runtime_reserve_mib, between=True),
            Input("activations", activations, 1.0, between=True),
            Input("prefill_chunk", self.chunks, self.chunks.index(self.scenario.activation.prefill_chunk_tokens)),
        )


def _place(format: object, formats: Sequence[str]) -> int:
    """Return where the scenario's format is among those that are varied, or 0."""
    return list(formats).index(format) if format in formats else 0


@dataclass(frozen=True)
class Model:
    """One model: its memory in every combination of formats, its routing, and times of its steps."""

    name: str
    memories: Sequence[ModelMemory]
    """By weight format and, within it, KV format."""
    popularity_cv: PopularityCV
    fetching_layers: int
    """MoE layers whose missing experts a decode step fetches: those of the decoder."""
    seconds: Floats
    """(GPUs, batch sizes, formats, 2): a step with all experts resident, with the fewest and the most distinct ones."""


def model_of(spec: ModelSpec, study: Study, estimators: Mapping[str, Estimator], popularity_cv: PopularityCV) -> Model:
    """Return what the outcomes of a model are computed from; its times are estimated once for every GPU and format."""
    arch, s = spec.architecture, study.settings
    formats = [
        study.scenario.model_copy(update={"precision": weights, "kv_format": cache})
        for weights, cache in product(s.weight_formats, s.kv_formats)
    ]
    context = min(study.step.context_tokens, arch.native_context)
    seconds = [
        estimate_step(estimators[gpu], arch, batch, context, used, scenario.precision_of(spec.precision)).seconds
        for gpu, batch, scenario in product(study.gpus, study.batch_sizes, formats)
        for used in _ends(arch.moe.experts, arch.moe.top_k, batch)
    ]
    shape = len(study.gpus), len(study.batch_sizes), len(formats), 2
    fetching = moe_layers(arch) - encoder_moe_layers(arch)
    memories = [model_memory(spec, scenario) for scenario in formats]
    return Model(spec.name, memories, popularity_cv, fetching, np.reshape(seconds, shape))


def _ends(experts: int, top_k: int, batch: int) -> tuple[int, int]:
    return top_k, min(experts, top_k * batch)


def outcomes(model: Model, values: Mapping[str, Floats], study: Study) -> dict[str, Floats]:
    """Return OUTCOMES of n configurations of a model.

    Parameters
    ----------
    model : Model
        The model.
    values : mapping from str to array (n,)
        What `Input.values` returns, by the name of the input. `activation_share`, if it is there, puts the report's
        rule in the place of the scenario's activations: that share of the active parameters, a byte each, times B.
    study : Study
        What inputs stand for.

    Returns
    -------
    dict from str to array (n,)
        gained_share, 1 - baseline / Prophet of the longest contexts, 0 where Prophet does not fit and 1 where only it
        does. slowdown, of a step that fetches what is missing when the router asks: no prefetch, no overhead but that
        of a copy.
    """
    count = len(values["batch_size"])
    blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, count, BLOCK_ROWS)]
    found = [_block(model, {name: each[rows] for name, each in values.items()}, study) for rows in blocks]
    return {name: np.concatenate([each[name] for each in found]) for name in OUTCOMES}


def _block(model: Model, values: Mapping[str, Floats], study: Study) -> dict[str, Floats]:
    place = {name: each.astype(int) for name, each in values.items()}
    batch = np.array(study.batch_sizes, float)[place["batch_size"]]
    format = place["weight_format"] * len(study.settings.kv_formats) + place["kv_format"]
    c = _columns(model, values, place, format, batch, study)
    unique, resident = _experts(c, values["law"], study)
    memory = evaluate(c, study.scenario, resident=resident)
    baseline, prophet = memory["baseline_max_context"], memory["prophet_max_context"]
    # Where prediction saves nothing, what it costs beside is not a gain below 0.
    gained = np.maximum(0.0, 1 - np.divide(baseline, prophet, out=np.ones_like(prophet), where=prophet > 0))

    gpus = list(study.gpus.values())
    links = np.array([gpu.link_gb_per_s for gpu in gpus])[place["gpu"]]
    few, many = (model.seconds[place["gpu"], place["batch_size"], format, end] for end in (0, 1))
    most = np.minimum(c["experts"], c["top_k"] * batch)
    part = np.divide(unique - c["top_k"], most - c["top_k"], out=np.zeros_like(unique), where=most > c["top_k"])
    step = few + (many - few) * np.clip(part, 0.0, 1.0)
    copy = study.link.copy_us * MICROSECOND + c["expert_bytes"] / (values["link_share"] * links * GB)
    missing = np.where(resident < c["experts"], (1 - values["hit_rate"]) * unique, 0.0)
    return {GAINED: gained, SLOWDOWN: 1 + model.fetching_layers * missing * copy / step}


def _columns(
    model: Model,
    values: Mapping[str, Floats],
    place: Mapping[str, np.ndarray],
    format: np.ndarray,
    batch: Floats,
    study: Study,
) -> dict[str, np.ndarray]:
    """The INPUTS of a sweep, each row by its formats, its GPU and its assumptions."""
    by_format = {
        field.name: np.array([getattr(memory, field.name) for memory in model.memories], float)[format]
        for field in fields(ModelMemory)
        if field.name != "further_caches"
    }
    caches = cache_columns([memory.further_caches for memory in model.memories])
    c = by_format | {name: each[format] for name, each in caches.items()} | {"batch": batch}
    c["forced_not_fitting"] = c["forced_not_fitting"].astype(bool)
    c["popularity_cv"] = _routing(model.popularity_cv, values["law_interval"])

    scenario = study.scenario
    devices = np.array([gpu.memory_bytes(scenario.device_memory) for gpu in study.gpus.values()], float)[place["gpu"]]
    reserve = (values["reserve_mib"] - scenario.runtime_reserve_mib) * MIB
    c["device_bytes"] = np.floor(devices * values["usable_memory"]) - reserve

    chunk = np.array(study.chunks, float)[place["prefill_chunk"]]
    in_flight = np.maximum(batch, chunk) / np.maximum(batch, scenario.activation.prefill_chunk_tokens)
    c["activation_bytes_per_token"] = c["activation_bytes_per_token"] * in_flight * values["activations"]
    c["activation_bytes_per_sequence"] = c["activation_bytes_per_sequence"] * values["activations"]
    if "activation_share" in values:
        c["activation_bytes_per_token"] = np.zeros_like(batch)
        c["activation_bytes_per_sequence"] = values["activation_share"] * c["active_params"]
    return {name: each for name, each in c.items() if name in INPUTS or name in caches}


def _routing(popularity_cv: PopularityCV, place: Floats) -> Floats:
    """Popularity CVs: the low end of the interval at -1, the value at 0, the high end at 1."""
    value = popularity_cv.value
    low, high = (value if isnan(end) else end for end in (popularity_cv.low, popularity_cv.high))
    return value + np.where(place < 0, place * (value - low), place * (high - value))


def _experts(c: Mapping[str, Floats], law: Floats, study: Study) -> tuple[Floats, Floats]:
    """u(B) and the resident experts: by the scenario's law and rule, or by a power law, rounded up."""
    exponents = np.array([1.0, *study.settings.exponent])[law.astype(int)]
    unique = unique_experts(study.scenario.routing, c["experts"], c["top_k"], c["popularity_cv"], c["batch"])
    resident = resident_experts(c, unique, study.scenario)
    powered = power_law(c["experts"], c["top_k"], exponents, c["batch"])
    own = law == 0
    rounded = np.minimum(c["experts"], np.ceil(powered - ROUNDING_GUARD))
    return np.where(own, unique, powered), np.where(own, resident, rounded)


def one_at_a_time(models: Sequence[Model], study: Study) -> Iterator[dict[str, object]]:
    """Yield the outcomes at the reference, and with each input at each of its levels or ends, of models and of all."""
    inputs = study.inputs()
    cases: list[tuple[str, str, dict[str, float]]] = [("none", "", {})]
    for each in inputs:
        cases += [(each.name, each.told(step), {each.name: step}) for step in each.steps()]
    middle = [(rate, {"hit_rate": rate}) for rate in study.settings.hit_rate[1:-1]]
    cases += [("hit_rate", f"{rate:g}", change) for rate, change in middle]
    found = {model.name: outcomes(model, changed(inputs, [change for *_, change in cases]), study) for model in models}
    labels = [(name, level) for name, level, _ in cases]
    yield from _rows("one_at_a_time", found, labels)
    shares = study.settings.activation_share
    by_rule = changed(inputs, [{}] * len(shares)) | {"activation_share": np.array(shares)}
    found = {model.name: outcomes(model, by_rule, study) for model in models}
    yield from _rows("one_at_a_time", found, [("report_activations", f"{share:g}") for share in shares])


def two_at_a_time(models: Sequence[Model], study: Study) -> Iterator[dict[str, object]]:
    """Yield the outcomes of all models together over the MAPS."""
    inputs = {each.name: each for each in study.inputs()}
    for outcome, rows, columns in MAPS:
        given = study.settings.map_hit_rates if rows == "hit_rate" else inputs[rows].steps()
        cells = list(product(given, inputs[columns].steps()))
        values = changed(list(inputs.values()), [{rows: one, columns: other} for one, other in cells])
        found = {model.name: outcomes(model, values, study) for model in models}
        for place, (one, other) in enumerate(cells):
            several = [each[outcome][place] for each in found.values()]
            yield _row("two_at_a_time", outcome, ALL, rows, inputs[rows].told(one), _mean(outcome, several)) | {
                "other_input": columns,
                "other_level": inputs[columns].told(other),
            }


def shares_of_variance(models: Sequence[Model], study: Study) -> Iterator[dict[str, object]]:
    """Yield first-order and total shares of the variance of each outcome, by model, and their means over models."""
    inputs, s = study.inputs(), study.settings
    problem = {"num_vars": len(inputs), "names": [each.name for each in inputs], "bounds": [[0, 1]] * len(inputs)}
    unit = samples_by_sobol.sample(problem, s.base_samples, calc_second_order=False, seed=s.seed)
    values = {each.name: each.values(unit[:, place]) for place, each in enumerate(inputs)}
    every: dict[tuple[str, str, str], list[float]] = {}
    for model in models:
        found = outcomes(model, values, study)
        for outcome in OUTCOMES:
            result = np.log(found[outcome]) if outcome == SLOWDOWN else found[outcome]
            told = shares_by_sobol.analyze(
                problem, result, calc_second_order=False, num_resamples=s.resamples, seed=s.seed
            )
            for analysis, key in (("first_order", "S1"), ("total_order", "ST")):
                for each, share, half in zip(inputs, told[key], told[f"{key}_conf"], strict=True):
                    every.setdefault((analysis, outcome, each.name), []).append(float(share))
                    row = _row(analysis, outcome, model.name, each.name, "", float(share))
                    yield row | {"low": share - half, "high": share + half}
    for (analysis, outcome, name), several in every.items():
        row = _row(analysis, outcome, ALL, name, "", float(np.mean(several)))
        yield row | {"low": min(several), "high": max(several)}


def _rows(
    analysis: str, found: Mapping[str, Mapping[str, Floats]], labels: Sequence[tuple[str, str]]
) -> Iterator[dict[str, object]]:
    for outcome, (place, (name, level)) in product(OUTCOMES, enumerate(labels)):
        several = {model: float(each[outcome][place]) for model, each in found.items()}
        for model, value in several.items():
            yield _row(analysis, outcome, model, name, level, value)
        ends = {"low": min(several.values()), "high": max(several.values())}
        yield _row(analysis, outcome, ALL, name, level, _mean(outcome, list(several.values()))) | ends


def _mean(outcome: str, several: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(several))) if outcome == SLOWDOWN else np.mean(several))


def _row(analysis: str, outcome: str, model: str, name: str, level: str, value: float) -> dict[str, object]:
    row = dict.fromkeys(column.name for column in SENSITIVITY.columns)
    told = {"analysis": analysis, "outcome": outcome, "model": model, "input": name, "level": level, "value": value}
    return row | {"other_input": "", "other_level": "", "low": np.nan, "high": np.nan} | told


def sensitivity(models: Sequence[Model], study: Study) -> pd.DataFrame:
    """Return the columns of SENSITIVITY, analysis after analysis."""
    return pd.DataFrame(
        [*one_at_a_time(models, study), *two_at_a_time(models, study), *shares_of_variance(models, study)]
    )


def build(files, parameters):
    """Write table 22, the sensitivity."""
    settings = SensitivitySettings.model_validate(parameters["sensitivity"])
    configured, reference = read_configured(files, parameters), parameters["reference"]
    gpus, scenario = configured.gpus, configured.scenario
    step = DecodeStep.model_validate(parameters["decode_step"])
    link = link_named(step.link, load_links(files.links))
    study = Study(
        gpus, parameters["batch_sizes"], reference["gpu"], reference["batch_size"], scenario, link, step, settings
    )
    estimators = read_estimators(files.operators[0].parent, gpus)
    unfitted = PopularityCV("", scenario.routing.batching, scenario.given_popularity_cv, nan, nan, "given")
    models = [
        model_of(spec, study, estimators, configured.popularity_cvs.get(name, unfitted))
        for name, spec in configured.models.items()
    ]
    write_table(files.table, sensitivity(models, study), SENSITIVITY)
