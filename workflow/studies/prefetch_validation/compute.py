"""Simulated against measured times: the simulated decode loop, and what `collect prefetch` recorded on a GPU."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prophet_moe.catalog import load_gpus
from prophet_moe.collect.plan import read_as, read_recorded
from prophet_moe.errors import UserError
from prophet_moe.files import sha256, write_csv
from prophet_moe.hardware.profile import AttentionShape, Profile, check_device, read_profile
from prophet_moe.hardware.recorded import Recording, again, read_recording
from prophet_moe.offload.decode_loop.clock import Tokens, step_seconds, tokens_of
from prophet_moe.offload.decode_loop.decisions import (
    Step,
    decide,
    held_out,
    lanes,
    often_chosen,
    plan_prefetches,
    tallied,
)
from prophet_moe.offload.decode_loop.plan import ALL_RESIDENT, DTYPE_BYTES, KIND, PROPHET, Plan, Workload
from prophet_moe.offload.simulator.simulation import Times
from prophet_moe.predict.context import context_of
from prophet_moe.predict.network import Network, read_trained
from prophet_moe.routing.store import METADATA, TRACE, read_trace
from prophet_moe.routing.trace import Trace

TOLERANCE_PCT = 10.0
"""What a simulated time per token may differ from the measured one, of the measured."""
COPIES_TOLERANCE = 0.01
"""What copies may differ: scores of the predictor are rounded otherwise on a GPU, so that the last of its best may."""
CONFIGURATION = ["workload", "policy", "batch", "slots"]
COPIED = ("demand_bytes", "prefetch_used_bytes", "prefetch_wrong_bytes")
UNMEASURED = pd.Series(np.nan, ["seconds", "copies", "layers_host_late"])
GIVEN, NOT_MEASURED, WITHIN, BEYOND = "given", "not measured", "within tolerance", "beyond tolerance"


@dataclass(frozen=True)
class Machine:
    """A GPU that the loop ran on, or that it is simulated on alone."""

    gpu: str
    profile: Profile
    measured: pd.DataFrame | None = None
    """What was measured of a step by CONFIGURATION, see read_summaries; None: it was never measured."""


def read_summaries(recording: Recording, plan: Plan) -> pd.DataFrame:
    """By CONFIGURATION the means of a step in a recorded prefetch.csv: `seconds`, `attention_seconds` of all layers,
    `copies`, and `layers_host_late`, layers that the device began before the host had queued them (NaN without a GPU).

    What `plan`, the recorded one, replayed must still be there: another trace is a UserError.
    """
    recording.require(("row", *CONFIGURATION, "seconds", "attention_seconds", "expert_bytes", "trace_sha256", *COPIED))
    rows = recording.where(row="summary")
    for name, workload in plan.workloads.items():
        for recorded in rows.loc[rows["workload"] == name, "trace_sha256"].unique():
            if recorded != sha256(Path(workload.trace) / TRACE):
                problem = f"is not the trace that {name} replayed: sha256 {recorded}"
                advice = f"Bring that one back. {again(recording.folder, KIND)}"
                raise UserError(f"{workload.trace}/{TRACE}", problem, advice)
    times = recording.numbers(rows, "batch", "slots", "seconds", "attention_seconds", "expert_bytes")
    late = rows["layers_host_late"] if "layers_host_late" in rows else pd.Series("", rows.index)
    copied = recording.numbers(rows, *COPIED, zero=True).sum(axis=1)
    table = rows[["workload", "policy"]].assign(
        batch=times["batch"].astype(int),
        slots=times["slots"].astype(int),
        seconds=times["seconds"],
        attention_seconds=times["attention_seconds"],
        copies=copied / times["expert_bytes"],
        layers_host_late=pd.to_numeric(late, errors="coerce"),
    )
    return table.set_index(CONFIGURATION)


def compare(plan: Plan, machines: Sequence[Machine]) -> pd.DataFrame:
    """One row per machine, workload, batch, policy and number of slots: simulated and measured time per token.

    Copies are per step. Where a machine was measured, what `all_resident` took there is given, attention and experts:
    a layer computes as long in every policy. error_pct = 100 (simulated / measured - 1). A recording of other copies
    than the replay makes is a UserError.
    """
    rows = []
    for name, workload in plan.workloads.items():
        trace = held_out(workload)
        for batch, policy, slots, seconds, tally in _simulated(plan, name, workload, trace, machines):
            copies = sum(tally[kind].sum() for kind in ("misses", "prefetches_used", "prefetches_wrong"))
            steps, requests = len(tally["requests"]), tally["requests"].sum()
            for machine, each in zip(machines, seconds, strict=True):
                recorded = _recorded(machine, (name, policy, batch, slots), copies / steps)
                measured = recorded["seconds"] / batch
                rows.append(
                    {
                        "gpu": machine.gpu,
                        "profile": machine.profile.source,
                        "workload": name,
                        "policy": policy,
                        "batch": batch,
                        "slots": slots,
                        "experts": trace.router.experts,
                        "hit_rate": tally["hits"].sum() / requests,
                        "copies": copies / steps,
                        "measured_copies": recorded["copies"],
                        "layers_host_late": recorded["layers_host_late"],
                        "simulated_ms_per_token": 1e3 * each / batch,
                        "measured_ms_per_token": 1e3 * measured,
                        "error_pct": 100 * (each / batch / measured - 1),
                        "verdict": _verdict(policy, each / batch, measured),
                    }
                )
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per GPU, profile and policy: mean and largest absolute error, and whether all are within tolerance.

    All policies have the same `configurations` of workload, batch and slots: what `all_resident` takes with its E slots
    stands beside every number of slots that the others were run with.
    """
    rows = []
    for (gpu, profile, policy), group in _of_equal_sets(table).groupby(["gpu", "profile", "policy"], sort=False):
        verdicts = set(group["verdict"])
        error = group["error_pct"].abs()
        rows.append(
            {
                "gpu": gpu,
                "profile": profile,
                "policy": policy,
                "configurations": len(group),
                "measured": int(group["measured_ms_per_token"].notna().sum()),
                "simulated_ms_per_token": group["simulated_ms_per_token"].median(),
                "measured_ms_per_token": group["measured_ms_per_token"].median(),
                "mean_absolute_error_pct": error.mean(),
                "largest_absolute_error_pct": error.max(),
                "verdict": next(one for one in (NOT_MEASURED, BEYOND, WITHIN, GIVEN) if one in verdicts),
            }
        )
    return pd.DataFrame(rows)


def _of_equal_sets(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a row of `all_resident` for every number of slots of the other policies, if there are others."""
    resident = table["policy"] == ALL_RESIDENT
    keys = ["gpu", "profile", "workload", "batch"]
    sets = table.loc[~resident, [*keys, "slots"]].drop_duplicates()
    if sets.empty:
        return table
    order = table[["gpu", "profile", "policy"]].drop_duplicates()
    return order.merge(pd.concat([table[resident].drop(columns="slots").merge(sets, on=keys), table[~resident]]))


def network_scores(network: Network, trace: Trace, rows: NDArray[np.int64], lookahead: int) -> NDArray[np.float32]:
    """Return scores of every expert for the tokens in `rows` (T, B), (lookahead, L, T, B, E), as the loop has them.

    [d - 1, l] are those of layer l, made d layers before it; 0 where nothing of the token is known yet.
    """
    context, layers = context_of(trace), len(trace.router.layers)
    scores = np.zeros((lookahead, layers, rows.size, trace.router.experts), np.float32)
    for ahead in range(1, lookahead + 1):
        for layer in range(ahead, layers):
            scores[ahead - 1, layer] = network.scores(context.inputs(layer, ahead)[rows.ravel()], layer, ahead)
    return scores.reshape(lookahead, layers, *rows.shape, -1)


def loop_times(plan: Plan, workload: Workload, profile: Profile, layers: int, batch: int) -> Times:
    """Return times of the loop's layers by a profile: projections, attention and experts, no norms and no launches."""
    size, hidden = DTYPE_BYTES[workload.dtype], workload.hidden
    shape = AttentionShape(workload.heads, workload.kv_heads, workload.head_dim, 0)
    other = profile.attention_seconds(shape, batch, plan.context, size)
    other += profile.weights_seconds(hidden * (workload.qkv_width + hidden), batch, size)
    experts = [
        profile.expert_seconds(hidden, workload.inner, workload.gated, tokens, size) for tokens in range(1, batch + 1)
    ]
    fetch = profile.transfer_seconds(workload.expert_bytes)
    return Times(np.full(layers, other), np.array([0.0, *experts]), (fetch,))


class Run(NamedTuple):
    """One simulated configuration of a workload."""

    batch: int
    policy: str
    slots: int
    seconds: list[float]
    """Mean seconds of a step on each machine."""
    tally: dict[str, NDArray[np.int64]]
    """Counts of the measured steps, as `decisions.tallied` names them."""


def _simulated(plan: Plan, name: str, workload: Workload, trace: Trace, machines: Sequence[Machine]) -> Iterator[Run]:
    """Simulate every batch size, policy and number of slots."""
    first = workload.history_tokens + workload.warmup_tokens
    replayed = {
        batch: lanes(trace, batch, workload.replayed_tokens, plan.sequence_tokens, plan.seed) for batch in plan.batches
    }
    often, folder, network = often_chosen(workload), Path(workload.trace), None
    if PROPHET in plan.policies:
        network = read_trained(Path(workload.predictor), read_trace(folder), folder)
    for batch, rows in replayed.items():
        choices = trace.experts[rows]
        tokens = tokens_of(choices[first:])
        clocks = [_times(machine, plan, name, workload, trace, batch, tokens) for machine in machines]
        for policy in plan.policies:
            scores = network_scores(network, trace, rows, plan.lookahead) if policy == PROPHET else None
            planned = plan_prefetches(policy, choices, plan.lookahead, often, scores)
            for slots in plan.slots(policy, trace.router.experts, trace.router.top_k):
                steps = decide(choices, planned, slots, plan.prefetches_per_layer)[first:]
                seconds = [_mean_seconds(steps, tokens, clock, plan.miss_priority) for clock in clocks]
                yield Run(batch, policy, slots, seconds, tallied(steps))


def _mean_seconds(steps: Sequence[Step], tokens: Sequence[Tokens], clock: Times, miss_priority: bool) -> float:
    pairs = zip(steps, tokens, strict=True)
    return fmean(step_seconds(step, each, clock, miss_priority=miss_priority) for step, each in pairs)


def _times(
    machine: Machine,
    plan: Plan,
    name: str,
    workload: Workload,
    trace: Trace,
    batch: int,
    tokens: Sequence[Tokens],
) -> Times:
    """Times of the loop on a machine: where it was measured, its layers take as long as `all_resident` did."""
    layers = len(trace.router.layers)
    times = loop_times(plan, workload, machine.profile, layers, batch)
    if machine.measured is None or ALL_RESIDENT not in plan.policies:
        return times
    step = _recorded(machine, (name, ALL_RESIDENT, batch, trace.router.experts), 0)
    counts = [count for one in tokens for layer in one for count in layer.values()]
    experts = sum(times.expert_seconds[count] for count in counts) / len(tokens)
    # Launches of experts' kernels are not in the profile: what attention does not explain is theirs, in proportion.
    work = times.expert_seconds * (step["seconds"] - step["attention_seconds"]) / experts
    return Times(np.full(layers, step["attention_seconds"] / layers), work, times.transfer_seconds)


def _recorded(machine: Machine, configuration: tuple[str, str, int, int], copies: float) -> pd.Series:
    """What was measured of a configuration, in which a step makes so many copies; NaN where nothing was."""
    if machine.measured is None:
        return UNMEASURED
    where = str(Path("resources") / KIND / machine.gpu)
    named = ", ".join(map(str, configuration))
    if configuration not in machine.measured.index:
        raise UserError(where, f"holds no summary of {named}, which its plan names", again(Path(where), KIND))
    recorded = machine.measured.loc[configuration]
    if abs(recorded["copies"] - copies) > COPIES_TOLERANCE * max(copies, recorded["copies"]):
        problem = f"{named}: made {recorded['copies']:g} copies a step, the replay makes {copies:g}"
        raise UserError(where, problem, f"Its predictor or rules were others. {again(Path(where), KIND)}")
    return recorded


def _verdict(policy: str, simulated: float, measured: float) -> str:
    if np.isnan(measured):
        return NOT_MEASURED
    if policy == ALL_RESIDENT:
        return GIVEN
    return WITHIN if abs(100 * (simulated / measured - 1)) <= TOLERANCE_PCT else BEYOND


def build(files, parameters):
    """Write a row per GPU and configuration, and table 12; GPUs that were never measured are simulated on the plan."""
    measured = {path.parent for path in files.recorded}
    tables, unmeasured = [], []
    for name, spec in load_gpus(files.gpus, parameters["gpus"]).items():
        profile = read_profile(Path(parameters["profiles"]), name, spec)
        folder = Path(parameters["recordings"]) / name
        if folder not in measured:
            unmeasured.append(Machine(name, profile))
            continue
        recording = read_recording(folder, KIND)
        check_device(recording, name, spec)
        plan = read_recorded(Plan, recording.metadata, folder / METADATA)
        tables.append(compare(plan, [Machine(name, profile, read_summaries(recording, plan))]))
    if unmeasured:
        tables.append(compare(read_as(Plan, files.plan), unmeasured))
    order = {name: number for number, name in enumerate(parameters["gpus"])}
    table = pd.concat(tables).sort_values("gpu", key=lambda names: names.map(order), kind="stable")
    write_csv(files.validation, table)
    write_csv(files.summary, summary(table))
