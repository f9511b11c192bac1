"""Arrivals served by continuous batching: the batches that come of them, what Prophet saves there, and the claims."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from prophet_moe import params
from prophet_moe.capacity.engine import engine_budget
from prophet_moe.capacity.under_engine import serving
from prophet_moe.catalog import ModelSpec, load_gpus
from prophet_moe.catalog.engine import EngineSpec, load_engine
from prophet_moe.catalog.model import load_model
from prophet_moe.catalog.names import load_names, named
from prophet_moe.errors import UserError
from prophet_moe.hardware.estimate import read_estimators
from prophet_moe.routing.law import unique_experts
from prophet_moe.routing.popularity_cv import PopularityCV, popularity_cv_for, popularity_cvs_of
from prophet_moe.serving.arrival_law import draw, read_law
from prophet_moe.serving.arrivals import Arrivals
from prophet_moe.serving.batching import PERCENTILES, Dispatch, Limits, Served, serve, weighted_quantiles
from prophet_moe.serving.limits import limits_of
from prophet_moe.serving.step_times import StepTimes, decode_seconds, tabulate
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import read_table, write_table
from prophet_moe.units import GB
from prophet_moe.validation import read_json
from studies.dynamic_batching.study import CLAIMS, DISTRIBUTION, DYNAMIC_BATCHING, DynamicBatchingSettings

AS_SHIPPED = {"architecture": "published", "precision": "shipped"}
"""What the study changes of a scenario: every model is served in the formats of its own file."""
RECORDED, FITTED = "recorded", "fitted"
LEAST_LOADED: Dispatch = "least_loaded"
ROUNDED = 0.5
"""A mean batch size counts as the whole number that it is nearest to."""


@dataclass(frozen=True)
class Claim:
    """What report 002 says of the requests of a kind of service, and whose arrivals answer it."""

    text: str
    report: str
    within: int
    claimed_pct: float
    traces: tuple[str, ...]


STATED = (
    Claim(
        "chatbots: 95 % of requests at batch 1 to 2", "002:111", 2, 95, ("azure-conversation", "mooncake-conversation")
    ),
    Claim("code completion: 98 % at batch 1", "002:112", 1, 98, ("azure-code",)),
    Claim("standard APIs: 80 % at batch 16 or less", "002:113", 16, 80, ("azure-conversation", "azure-code")),
)
"""No trace of a standard API is public: both services of Azure, which are called as one, answer the third."""


@dataclass(frozen=True)
class Service:
    """A model on a GPU, as it is served."""

    model: str
    gpu: str
    limits: Limits
    times: StepTimes
    pace: tuple[float, float]
    """Ends of the interval of a step's time, over the estimate."""
    pool_bytes: float
    """Bytes of the KV pool."""
    experts: int
    expert_bytes: int
    """Bytes of all routed experts."""
    unique: Callable[[Sequence[int]], np.ndarray]
    """u(B)."""

    @cached_property
    def savings(self) -> np.ndarray:
        """Return the share of expert bytes that a step does not need, by its tokens from 0."""
        used = self.unique(range(1, self.limits.tokens + 1))
        return np.concatenate([[1.0], 1 - used / self.experts])

    def at(self, pace: float) -> "Service":
        """Return the same with steps that take `pace` times as long."""
        return replace(self, times=self.times.scaled(pace))

    @property
    def told(self) -> dict[str, Any]:
        """Return what recorded results rest on, to see whether it has changed."""
        steps = {str(batch): 1e3 * decode_seconds(self.times, batch, 1024) for batch in (1, 16, 128)}
        share = {str(batch): 100 * float(self.savings[batch]) for batch in (1, 16, 128)}
        return {"gpu": self.gpu, "limits": asdict(self.limits), "step_ms": steps, "savings_pct": share}


def service_of(
    spec: ModelSpec,
    gpu: str,
    engine: EngineSpec,
    scenario: Scenario,
    known: Mapping[str, PopularityCV],
    compute_share: float,
    files: Any,
) -> Service:
    """Return a model on a GPU with its limits and the seconds of its steps.

    `known` are popularity CVs by model, empty where the routing is not fitted. `files` has gpus, names and operators,
    as the rule does.
    """
    (listed,) = load_gpus(files.gpus, [gpu]).values()
    asked = serving(spec, gpu, listed, scenario, engine, named(spec.name, load_names(files.names)))
    limits, arch, moe = limits_of(asked), spec.architecture, spec.architecture.moe
    spread = popularity_cv_for(spec.name, moe.experts, moe.top_k, known) if known else None

    def unique(tokens: Sequence[int]) -> np.ndarray:
        batch = np.array(tokens, float)
        shape = (np.full_like(batch, each) for each in (moe.experts, moe.top_k, spread.value if spread else 0.0))
        found = unique_experts(scenario.routing, *shape, batch)
        return np.minimum(found, np.minimum(moe.experts, moe.top_k * batch))

    estimator = read_estimators(files.operators[0].parent, {gpu: listed})[gpu]
    residuals = estimator.constants.residuals_of(gpu, engine.engine, estimator.operators is not None)
    times = tabulate(
        estimator,
        arch,
        asked.precision,
        unique=unique,
        most_sequences=limits.sequences,
        most_tokens=limits.tokens,
        most_context=limits.longest,
        compute_share=compute_share,
    )
    held = params.moe_layers(arch) * moe.experts * params.expert_bytes(arch, asked.precision)
    pace = min(1.0, residuals.low), max(1.0, residuals.high)
    return Service(spec.name, gpu, limits, times, pace, engine_budget(asked).pool_bytes, moe.experts, held, unique)


def described(served: Served, service: Service, settings: DynamicBatchingSettings) -> dict[str, Any]:
    """Return the columns of DYNAMIC_BATCHING from `requests` on, of one run."""
    arrivals, batches, instances = served.arrivals, served.batches, len(served.instances.clock)
    decoded = batches.decoded.sum()
    waits, paces = served.first_token_seconds, 1e3 * served.token_seconds
    within = np.cumsum(batches.decoded) / decoded
    sizes, tokens = np.arange(len(batches.decoded)), np.arange(len(batches.decoded_by_tokens))
    middle, most, rare = weighted_quantiles(batches.decoded, [each / 100 for each in PERCENTILES])
    savings = 100 * service.savings
    with_prompts = float(savings[tokens] @ batches.decoded_by_tokens / decoded)
    whole = arrivals.prompts[served.finished].sum()
    return {
        "requests": len(arrivals),
        "refused_pct": 100 * float(served.requests.refused.mean()),
        "keeps_up": bool(np.quantile(waits, 0.95) <= settings.first_token_s),
        "busy_pct": 100 * (1 - served.idle_share),
        "batch_mean": float(sizes @ batches.seconds / batches.seconds.sum()),
        "batch_p50": middle,
        "batch_p95": most,
        "batch_p99": rare,
        **{
            key: value
            for size in (1, 2, 16)
            for key, value in (
                (f"tokens_within_{size}_pct", 100 * float(within[min(size, len(within) - 1)])),
                (f"requests_within_{size}_pct", 100 * float((served.request_batches < size + ROUNDED).mean())),
            )
        },
        "beside_prompts_pct": 100 * float(1 - batches.alone.sum() / decoded),
        "savings_pct": float(savings[sizes] @ batches.decoded / decoded),
        "savings_with_prompts_pct": with_prompts,
        "savings_at_p99_pct": float(savings[rare]),
        "pool_extension": 1 + float(service.savings[rare]) * service.expert_bytes / service.pool_bytes,
        "saved_gb": with_prompts / 100 * service.expert_bytes / GB,
        "tokens_per_s": float(served.requests.generated.sum() / served.seconds / instances),
        **{f"first_token_p{each}": float(np.percentile(waits, each)) for each in PERCENTILES},
        **{f"token_p{each}": float(np.percentile(paces, each)) for each in PERCENTILES},
        "kv_mean_pct": 100 * served.occupancy_mean,
        "kv_most_pct": 100 * served.occupancy_most,
        "preempted": int(served.requests.preempted.sum()),
        "reused_pct": 100 * float(served.requests.reused.sum() / whole),
    }


def classes(most: int) -> list[tuple[int, int]]:
    """Return classes of batch sizes up to `most`: 0, 1, 2, 3 to 4, 5 to 8 and so on."""
    found, low = [(0, 0), (1, 1)], 2
    while low <= most:
        high = min(most, 2 * (low - 1))
        found.append((low, high))
        low = high + 1
    return found


def distribution(served: Served, service: Service) -> Iterator[dict[str, Any]]:
    """Yield the columns of DISTRIBUTION from `batch_from` on, of one run: a row for each class of batch sizes."""
    batches = served.batches
    for low, high in classes(service.limits.sequences):
        here = slice(low, high + 1)
        decoded = batches.decoded[here]
        saved = 100 * float(service.savings[here] @ decoded / decoded.sum()) if decoded.any() else np.nan
        yield {
            "batch_from": low,
            "batch_to": high,
            "time_pct": 100 * float(batches.seconds[here].sum() / batches.seconds.sum()),
            "tokens_pct": 100 * float(decoded.sum() / batches.decoded.sum()),
            "savings_pct": saved,
        }


def runs(
    services: Sequence[Service],
    arrivals: Mapping[str, Arrivals],
    kind: str,
    settings: DynamicBatchingSettings,
    dispatches: Sequence[Dispatch] = (LEAST_LOADED, "round_robin"),
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Serve every trace on every service by every number of instances.

    Parameters
    ----------
    services : sequence of Service
        Models on GPUs.
    arrivals : mapping from str to Arrivals
        Requests by the name of their trace.
    kind : str
        RECORDED or FITTED.
    settings : DynamicBatchingSettings
        Numbers of instances.
    dispatches : sequence of str
        Ways to spread requests.

    Returns
    -------
    two DataFrames
        The rows of DYNAMIC_BATCHING, and those of DISTRIBUTION, of requests that go to the least loaded instance.
    """
    rows, found = [], []
    for trace, requests in arrivals.items():
        for service in services:
            for dispatch in dispatches:
                for instances in settings.instances:
                    served = serve(requests, service.times, service.limits, instances, dispatch)
                    if not served.requests.decoded.any():
                        problem = f"none of its requests decodes on {service.model} on {service.gpu}"
                        raise UserError(trace, problem, "Serve a model of longer context, or on a larger GPU.")
                    about = {"arrivals": kind, "trace": trace, "model": service.model, "gpu": service.gpu}
                    load = {"instances": instances, "rate_per_instance": requests.rate / instances}
                    rows.append(about | {"dispatch": dispatch} | load | described(served, service, settings))
                    if dispatch == LEAST_LOADED:
                        found.extend(about | load | row for row in distribution(served, service))
    names = ([column.name for column in table.columns] for table in (DYNAMIC_BATCHING, DISTRIBUTION))
    return tuple(pd.DataFrame(part, columns=each) for part, each in zip((rows, found), names, strict=True))


def answered(
    services: Sequence[Service], arrivals: Mapping[str, Arrivals], kind: str, settings: DynamicBatchingSettings
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return what `runs` returns, and the claims judged by it and by runs at both ends of the times of steps."""
    rows, found = runs(services, arrivals, kind, settings)
    ends = [
        runs([service.at(service.pace[end]) for service in services], arrivals, kind, settings, [LEAST_LOADED])[0]
        for end in (0, 1)
    ]
    return rows, found, claims(rows, *ends)


def claims(rows: pd.DataFrame, fast: pd.DataFrame, slow: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of CLAIMS from rows of DYNAMIC_BATCHING: by the estimate, and by both ends of it."""
    keys, found = ["arrivals", "trace", "model", "gpu"], []
    estimated, *ends = (
        dict(list(each[each["dispatch"] == LEAST_LOADED].groupby(keys, sort=False))) for each in (rows, fast, slow)
    )
    for claim in STATED:
        for about, group in estimated.items():
            if about[1] not in claim.traces:
                continue
            stated = {"claim": claim.text, "report": claim.report, "claimed_pct": claim.claimed_pct}
            found.append(stated | dict(zip(keys, about, strict=True)) | judged(claim, group))
            for name, end in zip(("fast", "slow"), ends, strict=True):
                judgement = judged(claim, end[about])
                found[-1] |= {f"{key}_{name}": judgement[key] for key in ("instances_needed", "verdict")}
    whole = {column.name: "Int64" for column in CLAIMS.columns if column.kind == "integer"}
    return pd.DataFrame(found, columns=[column.name for column in CLAIMS.columns]).astype(whole)


def judged(claim: Claim, rows: pd.DataFrame) -> dict[str, Any]:
    """Return what is found of a claim: on the fewest instances that keep up, and on the fewest that make it true."""
    shares = f"requests_within_{claim.within}_pct"
    able = rows[rows["keeps_up"]].sort_values("instances")
    true = able[able[shares] >= claim.claimed_pct]
    enough = able.iloc[0] if len(able) else None
    needed = true.iloc[0] if len(true) else None
    if needed is None:
        verdict = "does not hold"
    else:
        verdict = "holds" if needed["instances"] == enough["instances"] else "holds on more GPUs"
    return {
        "instances_enough": None if enough is None else enough["instances"],
        "found_pct": np.nan if enough is None else enough[shares],
        "instances_needed": None if needed is None else needed["instances"],
        "busy_pct": np.nan if needed is None else needed["busy_pct"],
        "kv_mean_pct": np.nan if needed is None else needed["kv_mean_pct"],
        "verdict": verdict,
    }


def services_of(files: Any, scenario: Scenario, settings: DynamicBatchingSettings) -> list[Service]:
    """Return the models on their GPUs that the settings name, in the formats of their own files."""
    shipped, engine = scenario.model_copy(update=AS_SHIPPED), load_engine(files.engine)
    specs = {path.stem: load_model(path) for path in files.models}
    known = popularity_cvs_of(files.variations, scenario.routing.batching)
    return [
        service_of(specs[each.model], each.gpu, engine, shipped, known, settings.compute_share, files)
        for each in settings.served
    ]


def lasting(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that results of recorded arrivals rest on: all but those of drawn ones."""
    own = {key: value for key, value in parameters["dynamic_batching"].items() if key not in ("seconds", "seed")}
    return {"dynamic_batching": own, "scenario": parameters["scenario"]}


def build(files, parameters):
    """Write table 20, the distribution of batches, and the claims: of drawn arrivals, and as recorded of real ones."""
    settings = DynamicBatchingSettings.model_validate(parameters["dynamic_batching"])
    laws = [read_law(path) for path in files.laws]
    drawn = {law.trace: draw(law, settings.seconds, settings.seed) for law in laws}
    services = services_of(files, Scenario.model_validate(parameters["scenario"]), settings)
    parts = [answered(services, drawn, FITTED, settings)]
    tables = (DYNAMIC_BATCHING, DISTRIBUTION, CLAIMS)
    if read_json(files.recorded_parameters)["parameters"] == lasting(parameters):
        parts.insert(0, tuple(map(read_table, files.recorded, tables)))
    written = zip((files.table, files.distribution, files.claims), tables, zip(*parts, strict=True), strict=True)
    for path, table, frames in written:
        write_table(path, pd.concat(frames, ignore_index=True), table)
