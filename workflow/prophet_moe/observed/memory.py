"""Memory that engines printed, against what `capacity.engine` predicts of it: weights, cache, pool, tokens, fit."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prophet_moe.capacity.engine import EngineBudget, Serving, cache_of, engine_budget, printed_cache, sharded
from prophet_moe.catalog.architecture import Architecture, Compressed, Softmax
from prophet_moe.catalog.engine import version_in
from prophet_moe.catalog.model import ModelSpec
from prophet_moe.observed.context import Context
from prophet_moe.observed.schema import is_missing, result_frame, result_row
from prophet_moe.params import growing_bytes_per_token, state_bytes_per_sequence
from prophet_moe.params.sharding import Parallelism
from prophet_moe.precision import FORMATS, KV_FORMATS, Precision
from prophet_moe.settings.scenario import Formats
from prophet_moe.units import GIB

if TYPE_CHECKING:
    import pandas as pd

GOALS = {"weights": 0.1, "kv_bytes_per_token": None, "kv_pool": None, "kv_tokens": 3.0, "fits": 0.0}
"""Largest error in percent that counts as right; None: an error in other units, see `within_goal`."""
POOL_GIB = 0.3
"""Largest error of a KV pool, and so of a whole budget, in GiB."""
LLAMA = ("llama.cpp", "ik_llama.cpp")
"""Engines whose rows state the cache of the asked context over all devices, rather than a pool of one."""
BLOCK_TOKENS = 16
"""Tokens of a block where a row with blocks does not say."""
POOLS = ("kv_pool", "kv_pool_given_runtime", "kv_tokens")
"""Quantities that need the memory of the GPU as CUDA reports it."""
UNIFIED = ("GB10", "DGX Spark", "Radeon 8060S", "Apple", "Strix")
"""Words of GPUs whose memory is the host's, where runtime terms are differences of what other processes use."""
EIGHT_BITS = {"embeddings": "bf16", "output_embedding": "bf16"}
"""Formats of the parts that 8-bit checkpoints keep in 16 bits."""
INT4 = re.compile(r"int4|w4a16")
INT4_FORMATS = [FORMATS[name] for name in FORMATS if name.startswith("int4")]
"""Words of 4-bit integers, which are known where the model's authors ship them, and their formats."""
INFERRED = (
    (r"model by size|model and GPU only from|exact model not in|model only", "the model is inferred"),
    (r"parallel sizes (and|unknown)|parallel sizes not|world size not", "the parallel sizes are not known"),
    (r"retyped", "retyped by hand"),
    (r"ascend|gaudi|habana", "no profile describes an engine on this device"),
)
"""What notes say of rows that must not be used, and the reason in short."""


@dataclass(frozen=True)
class Case:
    """A row as a question to the engine model, and why single quantities of it must not be used."""

    asked: Serving
    reasons: Mapping[str, str]
    """Reasons by quantity; `all` holds for every one."""

    def reason(self, quantity: str) -> str:
        """Return why a quantity of the row must not be used; empty where it may."""
        return self.reasons.get(quantity) or self.reasons.get("all", "")


def predicted(rows: "pd.DataFrame", context: Context) -> "pd.DataFrame":
    """Predict every row of observed memory.

    Parameters
    ----------
    rows : DataFrame
        Observations with the columns of `schema.MEMORY`.
    context : Context
        Models, GPUs and engines.

    Returns
    -------
    DataFrame
        One row per observation and quantity that it states, with the columns of `schema.RESULT_COLUMNS`.
    """
    return result_frame(cells for row in rows.to_dict("records") for cells in _row(_known(row), context))


def within_goal(row: Mapping[str, Any]) -> bool | None:
    """Return whether a prediction is as near as this project wants; None where the quantity has no goal."""
    quantity = row["quantity"]
    if quantity not in GOALS or not isinstance(row["predicted"], int | float) or math.isnan(row["predicted"]):
        return None
    if quantity == "kv_pool":
        return abs(row["predicted"] - row["measured"]) <= POOL_GIB
    if quantity == "fits":
        return row["predicted"] == row["measured"]
    allowed = GOALS[quantity] if GOALS[quantity] is not None else 0.0
    rounding = row["allowed_pct"]
    return abs(row["error_pct"]) <= max(allowed, 0.0 if math.isnan(rounding) else rounding)


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of a row that are not empty."""
    return {name: cell for name, cell in row.items() if not is_missing(cell)}


def _row(row: dict[str, Any], context: Context) -> Iterator[dict[str, Any]]:
    head = {
        "id": row["id"],
        "kind": "memory",
        "engine": row["engine"],
        "gpu": row.get("gpu", ""),
        "model": row["model"],
    }
    case = case_of(row, context)
    stated = list(_measured(row, not isinstance(case, str) and _counts_sequences(case.asked.arch)))
    if isinstance(case, str):
        for quantity, value, unit, rounding in stated:
            yield result_row(**head, quantity=quantity, measured=value, unit=unit, allowed_pct=rounding, left_out=case)
        return
    budgets = {stage: engine_budget(replace(case.asked, stage=stage)) for stage in _stages(row, case.asked)}
    stage = _nearest_stage(row, budgets)
    asked, budget = replace(case.asked, stage=stage), budgets[stage]
    for quantity, value, unit, rounding in stated:
        found = _prediction(quantity, row, asked, budget)
        reason = case.reason(quantity) or _unusable(quantity, row, asked)
        if found is None:
            reason = reason or "the memory of the GPU is not known"
            found = math.nan
        yield result_row(
            **head,
            quantity=quantity,
            measured=value,
            predicted=found,
            unit=unit,
            allowed_pct=rounding,
            left_out=reason,
        )


def _measured(row: dict[str, Any], of_sequences: bool) -> Iterator[tuple[str, float, str, float]]:
    """Yield the quantities that a row states: name, value, unit, and the error that rounding allows in percent."""
    for quantity, column in (
        ("weights", "weights_gib_per_gpu"),
        ("non_torch", "non_torch_gib"),
        ("activations", "activation_peak_gib"),
        ("graphs", "cudagraph_gib"),
    ):
        if column in row:
            yield quantity, row[column], "GiB", _rounding(row[column])
    pool, held = row.get("kv_cache_gib_per_gpu"), _held(row, of_sequences)
    asked_cache = row["engine"] in LLAMA
    if pool is not None and pool > 0 and held:
        yield "kv_bytes_per_token", pool * GIB / held.tokens, "B", _rounding(pool) + held.rounding_pct
    if pool is not None and not asked_cache:
        yield "kv_pool", pool, "GiB", _rounding(pool)
        if "non_torch_gib" in row and "activation_peak_gib" in row:
            yield "kv_pool_given_runtime", pool, "GiB", _rounding(pool)
    if held and not asked_cache:
        yield "kv_tokens", held.tokens, "tokens", held.rounding_pct
    if (fits := _fitted(row)) is not None:
        yield "fits", fits, "", math.nan


def _rounding(value: float) -> float:
    """Return the error in percent that the last printed digit allows, of at least two after the point."""
    digits = max(2, len(f"{value:.10g}".partition(".")[2]))
    return 100 * 10.0**-digits / abs(value) if value else math.nan


@dataclass(frozen=True)
class Held:
    """The tokens that a pool is said to hold."""

    tokens: float
    rounding_pct: float
    """Error that the print allows, in percent."""
    length: int | None = None
    """Tokens of the sequences that are counted, where a number of sequences was printed; None: any tokens."""


def _held(row: dict[str, Any], of_sequences: bool) -> Held | None:
    """Return the tokens that a pool holds, None where a row does not tell them.

    `of_sequences` says that tokens do not tell it, as with windows and states: the printed concurrency does.
    """
    both = "max_concurrency" in row and "max_model_len" in row
    if both and (of_sequences or not {"kv_tokens", "kv_blocks"} & set(row)):
        length, sequences = int(row["max_model_len"]), row["max_concurrency"]
        return Held(sequences * length, _rounding(sequences), length)
    block = row.get("block_size", BLOCK_TOKENS)
    tokens = row["kv_tokens"] if "kv_tokens" in row else row["kv_blocks"] * block if "kv_blocks" in row else 0
    return Held(tokens, 100 * block / tokens) if tokens else None


def _counts_sequences(arch: Architecture) -> bool:
    """Return whether a pool's tokens depend on their sequences: some layers keep windows, or states alone."""
    windows = any(isinstance(mixer, Softmax | Compressed) and mixer.window for mixer in arch.mixers.values())
    return windows or not all(map(arch.keeps_cache, arch.mixers))


def _fitted(row: dict[str, Any]) -> float | None:
    """Return 1 where the row holds a KV pool, 0 where its notes say that the model does not fit; None else."""
    notes = row.get("notes", "").lower()
    if row.get("kv_cache_gib_per_gpu", 1) <= 0 or re.search(r"does not fit|out of memory", notes):
        return 0.0
    served = row.get("kv_cache_gib_per_gpu", 0) > 0 and row["engine"] in ("vllm", "sglang")
    return 1.0 if served else None


def case_of(row: dict[str, Any], context: Context) -> Case | str:
    """Return the question that a row asks; or, in words, why nothing of it can be predicted."""
    found = context.model(row.get("hf_id", ""), row["model"])
    if found is None:
        return "the model is not in the catalogue"
    spec, entry = found
    engine = context.engine(row["engine"], row.get("engine_version", ""))
    if engine is None:
        return f"no profile of engine {row['engine']} {row.get('engine_version', '')}".rstrip()
    reasons = _left_out(row.get("left_out", ""))
    notes = row.get("notes", "")
    for pattern, reason in INFERRED:
        if re.search(pattern, f"{notes} {row.get('engine_version', '')} {row.get('gpu', '')}", re.IGNORECASE):
            reasons.setdefault("all", reason)
    if "tp" not in row and row.get("gpus", 1) > 1:
        reasons.setdefault("all", "the parallel sizes are not known")
    precision, known = weight_formats(row.get("weight_dtype", ""), spec)
    if not known:
        for quantity in ("weights", *POOLS, "fits"):
            reasons.setdefault(
                quantity, f"bytes of weights in {row.get('weight_dtype') or 'an unnamed format'} unknown"
            )
    kv, kv_known = kv_format(row.get("kv_dtype", ""))
    if not kv_known:
        for quantity in ("kv_bytes_per_token", "kv_tokens"):
            reasons.setdefault(quantity, f"layout of a cache in {row['kv_dtype']} unknown")
    precision = replace(precision, kv=kv, mla_cache="decompressed" if re.search(r"\bmla 0\b", notes) else "latent")
    arch = spec.architecture
    if entry.vocab:
        arch = arch.model_copy(update={"vocab": entry.vocab})
    gpu = context.gpu(row.get("gpu", ""))
    total = row.get("total_gpu_gib") or (gpu[1].memory_visible_gib if gpu else None)
    if total is None and (sold := re.search(r"(\d+) ?GB", row.get("gpu", ""))):
        # No card has more than its name says: enough to tell that a model does not fit, not to tell a pool.
        total = float(sold[1])
        for quantity in POOLS:
            reasons.setdefault(quantity, "the memory of the GPU is not known")
    resident = re.search(r"(\d+) of \d+ experts per layer on the GPU", notes)
    kernels = re.search(r"marlin|triton", row.get("weight_dtype", ""))
    if kernels and engine.weights.padding and kernels[0] not in engine.weights.padding:
        reasons.setdefault("weights", f"layout of {kernels[0]} kernels is not known")
    asked = Serving(
        engine,
        arch,
        precision,
        total,
        row.get("gpu", ""),
        _parallelism(row),
        memory_share=row.get("gpu_memory_utilization"),
        sequences=_whole(row.get("max_num_seqs")),
        tokens=_whole(row.get("max_num_batched_tokens")),
        context=_whole(row.get("max_model_len")),
        eager="eager" in notes.lower(),
        kernels=kernels[0] if kernels else None,
        rotary_positions=entry.rotary_positions,
        rotary_width=entry.rotary_width,
        rotary_bytes=entry.rotary_bytes,
        resident_experts=int(resident[1]) if resident else None,
    )
    return Case(asked, reasons)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _left_out(text: str) -> dict[str, str]:
    """Return reasons by quantity of a cell such as `weights: a reason; kv_pool: another`; a bare reason is of all."""
    reasons = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        quantity, colon, reason = part.partition(":")
        reasons.update({quantity.strip(): reason.strip()} if colon and " " not in quantity else {"all": part})
    return reasons


def weight_formats(text: str, spec: ModelSpec) -> tuple[Precision, bool]:
    """Return the formats of weights that a source names in its words, and whether their bytes are known."""
    words = text.lower()
    shipped = Formats(precision="shipped").precision_of(spec.precision)
    if not words or words.startswith(("bf16", "fp16", "float16", "bfloat16")):
        return Precision(), bool(words)
    if words.startswith("mxfp4"):
        return shipped, shipped.format_of("routed_experts") == FORMATS["mxfp4"] and "gguf" not in words
    if "online" in words:
        return Precision("fp8_channel", EIGHT_BITS), False
    if words.startswith("fp8"):
        eight = shipped if shipped.format_of("routed_experts").bits == 8 else Precision("fp8_block128", EIGHT_BITS)
        return eight, "v4" not in words
    own = shipped.format_of("routed_experts")
    if (words.startswith("nvfp4") and own == FORMATS["nvfp4"]) or (INT4.match(words) and own in INT4_FORMATS):
        return shipped, True
    return Precision(), False


def kv_format(text: str) -> tuple[str, bool]:
    """Return the format of the KV cache that a source names in its words, and whether it is known."""
    words = text.lower()
    if not words or words.startswith(("auto", "bf16", "fp16", "f16", "float16", "bfloat16")):
        return "bf16", True
    if words.startswith("fp8"):
        return "fp8", True
    return (words, True) if words in KV_FORMATS else ("bf16", False)


def _parallelism(row: dict[str, Any]) -> Parallelism:
    tensor, pipeline, data = (int(row.get(name, 1)) for name in ("tp", "pp", "dp"))
    inside = row["engine"] == "sglang" and data > 1
    over = tensor if inside else tensor * data
    return Parallelism(tensor, pipeline, over if row.get("ep", 1) > 1 else 1, data, inside)


def _stages(row: dict[str, Any], asked: Serving) -> range:
    """Return the pipeline stages that a row may be of: the one that its notes name, else all."""
    depth = asked.over.pipeline
    words = ("first", "second", "third", "fourth")
    named = re.search(rf"({'|'.join(words)}) pipeline stage", row.get("notes", ""))
    return range(words.index(named[1]), words.index(named[1]) + 1) if named and depth > 1 else range(depth)


def _nearest_stage(row: dict[str, Any], budgets: Mapping[int, EngineBudget]) -> int:
    """Return the stage whose weights are nearest to the printed ones, where a row does not tell it."""
    printed = row.get("weights_gib_per_gpu")
    if printed is None:
        return min(budgets)
    return min(budgets, key=lambda stage: abs(budgets[stage].group_bytes("weights") / GIB - printed))


def _prediction(quantity: str, row: dict[str, Any], asked: Serving, budget: EngineBudget) -> float | None:
    """Return what is predicted of a quantity; None where the memory of the GPU is needed and not known."""
    match quantity:
        case "weights" | "non_torch" | "activations" | "graphs":
            return budget.group_bytes(quantity) / GIB
        case "kv_bytes_per_token":
            return _kv_per_token(row, asked)
        case "kv_pool":
            return None if budget.pool_bytes is None else (budget.pool_bytes + _offloaded(row, budget)) / GIB
        case "kv_pool_given_runtime":
            if budget.usable_bytes is None:
                return None
            weights = (budget.group_bytes("weights") - _offloaded(row, budget)) / GIB
            return budget.usable_bytes / GIB - weights - row["non_torch_gib"] - row["activation_peak_gib"]
        case "kv_tokens":
            return None if budget.pool_bytes is None else _tokens(row, asked, budget)
        case "fits":
            return None if budget.pool_bytes is None else float(budget.pool_bytes + _offloaded(row, budget) > 0)
    raise AssertionError(quantity)


def _kv_per_token(row: dict[str, Any], asked: Serving) -> float:
    """Return the bytes of cache per token: what each token adds, or the mean over sequences that were counted."""
    kept = cache_of(asked, sharded(asked))
    held = _held(row, _counts_sequences(asked.arch))
    length = held.length if held else None
    if row["engine"] in LLAMA and held:
        length = min(int(held.tokens), asked.context or int(held.tokens))
    if length is None:
        return float(growing_bytes_per_token(printed_cache(asked, kept)))
    return sum(cache.bytes(length) for cache in kept) / length


def _tokens(row: dict[str, Any], asked: Serving, budget: EngineBudget) -> float:
    """Return the tokens that the predicted pool holds, of the sequences that were counted."""
    pool = budget.pool_bytes + _offloaded(row, budget)
    held = _held(row, _counts_sequences(asked.arch))
    if held is None or held.length is None:
        return pool / _kv_per_token(row, asked)
    here = sharded(asked)
    one = sum(cache.bytes(held.length) for cache in cache_of(asked, here))
    return pool / (one + state_bytes_per_sequence(here, asked.precision)) * held.length


def _offloaded(row: dict[str, Any], budget: EngineBudget) -> float:
    """Return the bytes of weights that were left in host memory, by what the engine says is resident."""
    if "cpu_offload" not in row.get("notes", ""):
        return 0.0
    return budget.group_bytes("weights") - row.get("weights_gib_per_gpu", 0) * GIB


def _unusable(quantity: str, row: dict[str, Any], asked: Serving) -> str:
    """Return why a quantity of any such row must not be used; empty where it may."""
    notes = row.get("notes", "")
    unified = any(word.lower() in row.get("gpu", "").lower() for word in UNIFIED)
    runtime = ("non_torch", "activations", "graphs", *POOLS)
    if unified and quantity in runtime:
        return "unified memory: other processes are in the difference"
    if quantity == "weights" and "cpu_offload" in notes:
        return "a part of the weights is in host memory"
    if quantity == "weights" and row["engine"] == "sglang" and asked.over.gpus > 1 and "dp attention" not in notes:
        return "a difference of free memory with communication buffers in it"
    if quantity == "kv_bytes_per_token" and not all(asked.arch.keeps_cache(name) for name in asked.arch.mixers):
        return "the pool holds states and pages padded to them"
    if quantity in ("kv_bytes_per_token", "kv_tokens") and _windows_unknown(row, asked):
        return "windows are kept by rules of the engine that the row does not state"
    if quantity in POOLS:
        return _unprinted(row, asked)
    if quantity == "activations" and row["engine"] in LLAMA and "mla 3" in notes:
        return "-mla 3 expands keys and values of the whole context"
    return ""


def _windows_unknown(row: dict[str, Any], asked: Serving) -> bool:
    """Return whether layers with windows keep something that does not follow from what the row states."""
    windows = any(isinstance(mixer, Softmax | Compressed) and mixer.window for mixer in asked.arch.mixers.values())
    terms, held = asked.engine.cache, _held(row, of_sequences=True)
    if not windows or held is None:
        return False
    by_sequence = held.length is not None or row["engine"] in LLAMA
    return not (terms.window_beside_batch if by_sequence else terms.windows_count_as_full)


def _unprinted(row: dict[str, Any], asked: Serving) -> str:
    """Return which condition of a pool a row does not print and no default gives."""
    if "gpu_memory_utilization" not in row and "default" not in row.get("notes", "").lower():
        return "gpu_memory_utilization is not printed"
    if asked.total_gib is None:
        return "the memory of the GPU is not known"
    if row["engine"] == "vllm" and version_in(row.get("engine_version", "")) is None:
        return "the version of the engine is not printed, and its reserves differ by version"
    follows = asked.engine.scheduler.tokens_follow_context is not None
    if follows and not {"max_model_len", "max_num_batched_tokens"} & set(row):
        return "max_model_len and max_num_batched_tokens are not printed, and this generation takes one from the other"
    return ""
