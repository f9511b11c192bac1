"""Read the memory that vLLM or SGLang print when they start, from a pasted log; what is read is always shown.

The forms of the lines are those of the logs that resources/observations/memory.csv cites, from vLLM 0.4 to 0.26.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prophet_moe.catalog.engine import EngineSpec, profile_of, version_in
from prophet_moe.errors import UserError
from prophet_moe.validation import shortened

LARGEST_LOG = 64 * 2**20
"""Bytes of a log that are read at most. Start-up logs have some MB."""
LONGEST_LINE = 20_000
"""Characters of a line that are read; lines of arguments have some thousands."""
NUMBER = r"(-?\d[\d,]*(?:\.\d+)?)"
SHARE = "gpu_memory_utilization"
"""Column of the share of memory that an engine may use."""
POOL = "kv_cache_gib_per_gpu"
"""Column of the KV pool."""
SAME = 0.005
"""Relative difference up to which the weights of several ranks count as equal."""


@dataclass(frozen=True)
class LogForm:
    """A kind of line: what it looks like, the column it fills, and which of several ranks' values is taken."""

    pattern: re.Pattern[str]
    columns: tuple[str, ...]
    """Column of every group of the pattern; `+name` adds to a column."""
    take: Callable[[list[float]], float] = max


def _form(pattern: str, *columns: str, take: Callable[[list[float]], float] = max) -> LogForm:
    return LogForm(re.compile(pattern), columns, take)


VLLM = (
    _form(rf"Model loading took {NUMBER} ?Gi?B", "weights_gib_per_gpu"),
    _form(rf"Loading model weights took {NUMBER} ?Gi?B", "weights_gib_per_gpu"),
    _form(rf"model weights take\s+{NUMBER} ?Gi?B", "weights_gib_per_gpu"),
    _form(rf"Actual usage is {NUMBER} GiB for weight", "weights_gib_per_gpu"),
    _form(rf"non_torch_memory(?: takes)?\s+{NUMBER} ?Gi?B", "non_torch_gib"),
    _form(rf"{NUMBER} GiB for non-torch memory", "non_torch_gib"),
    _form(rf"non-torch forward increase memory: {NUMBER} ?GiB", "non_torch_gib"),
    _form(rf"PyTorch activation peak memory(?: takes)?\s+{NUMBER} ?Gi?B", "activation_peak_gib"),
    _form(rf"{NUMBER} GiB for peak activation", "activation_peak_gib"),
    _form(rf"torch peak memory increase: {NUMBER} ?GiB", "activation_peak_gib"),
    _form(rf"Graph capturing finished in .*?took {NUMBER} ?Gi?B", "cudagraph_gib"),
    _form(rf"Available KV cache memory: {NUMBER} ?Gi?B", POOL, take=min),
    _form(rf"available_kv_cache_memory\s+{NUMBER} ?Gi?B", POOL, take=min),
    _form(rf"rest of the memory reserved for KV Cache is {NUMBER} ?Gi?B", POOL, take=min),
    _form(rf"GPU KV cache size: {NUMBER} tokens", "kv_tokens", take=min),
    _form(rf"# (?:GPU|cuda) blocks: {NUMBER}", "kv_blocks", take=min),
    _form(
        rf"Maximum concurrency for {NUMBER} tokens per request: {NUMBER}x", "max_model_len", "max_concurrency", take=min
    ),
    _form(rf"total_gpu_memory \({NUMBER} ?GiB\) x gpu_memory_utilization \({NUMBER}\)", "total_gpu_gib", SHARE),
    _form(rf"total_gpu_memory\s+{NUMBER} ?GiB", "total_gpu_gib"),
    _form(rf"Free memory on device \([\d.]+/{NUMBER} GiB\)", "total_gpu_gib"),
    _form(rf"[Dd]esired GPU memory utilization is \({NUMBER},", SHARE),
    _form(rf"gpu_memory_utilization['\"]?\s*[=:]?\s*{NUMBER}", SHARE),
    _form(rf"--gpu-memory-utilization[ =]{NUMBER}", SHARE),
    _form(r"max_seq_len=(\d+)", "max_model_len"),
    _form(r"max_num_batched_tokens['\"]?\s*[=:]\s*(\d+)", "max_num_batched_tokens"),
    _form(r"max_num_seqs['\"]?\s*[=:]\s*(\d+)", "max_num_seqs"),
    _form(r"\btensor_parallel_size['\"]?\s*[=:]\s*(\d+)", "tp"),
    _form(r"\bpipeline_parallel_size['\"]?\s*[=:]\s*(\d+)", "pp"),
    _form(r"\bdata_parallel_size['\"]?\s*[=:]\s*(\d+)", "dp"),
)  # fmt: skip
"""Lines of vLLM."""

SGLANG = (
    _form(rf"Load weight end\..*?mem usage={NUMBER} GB", "weights_gib_per_gpu"),
    _form(rf"KV Cache is allocated\..*?#tokens: {NUMBER}", "kv_tokens", take=min),
    _form(rf"KV Cache is allocated\..*?K size: {NUMBER} GB, V size: {NUMBER} GB", POOL, f"+{POOL}", take=min),
    _form(rf"KV Cache is allocated\..*?KV size: {NUMBER} GB", POOL, take=min),
    _form(rf"Capture cuda graph end\..*?mem usage={NUMBER} GB", "cudagraph_gib"),
    _form(rf"\bmem_fraction_static={NUMBER}", SHARE),
    _form(rf"max_total_num_tokens={NUMBER}", "kv_tokens", take=min),
    _form(r"\bcontext_len(?:gth)?=(\d+)", "max_model_len"),
    _form(r"\bchunked_prefill_size=(\d+)", "max_num_batched_tokens"),
    _form(r"\btp_size=(\d+)", "tp"),
    _form(r"\bep_size=(\d+)", "ep"),
)  # fmt: skip
"""Lines of SGLang."""

FORMS = {"vllm": VLLM, "sglang": SGLANG}
INTEGERS = ("kv_tokens", "kv_blocks", "max_model_len", "max_num_batched_tokens", "max_num_seqs", "tp", "pp", "dp", "ep")
MODEL = {"vllm": re.compile(r"\bmodel=['\"]([^'\"]+)['\"]"), "sglang": re.compile(r"\bmodel_path=['\"]([^'\"]+)['\"]")}
VERSION = {
    "vllm": re.compile(r"(?:vLLM API server version|LLM [Ee]ngine \(v?|vLLM version:?) ?v?(\d+\.\d+[\w.+\-]*)"),
    "sglang": re.compile(r"(?:SGLang|sglang)(?: version|==|-v)[:= ]*v?(\d+\.\d+[\w.+\-]*)"),
}
MARKS = {
    "vllm": re.compile(
        r"\bvllm\b|LLM engine|GPU KV cache size|gpu_model_runner|gpu_memory_utilization|Available KV cache memory"
    ),
    "sglang": re.compile(r"\bsglang\b|mem_fraction_static|KV Cache is allocated|Load weight end", re.IGNORECASE),
}
"""What tells the engine of a log."""


@dataclass(frozen=True)
class Log:
    """What was read of a start-up log."""

    engine: str
    version: str
    """Version of the engine, with its generation where the log names it; empty: not in the log."""
    cells: Mapping[str, float | int | str]
    """Columns of an observation of memory."""
    notes: tuple[str, ...] = field(default=())

    def shown(self) -> Iterator[str]:
        """Yield what was read, a line each."""
        yield f"engine: {self.engine} {self.version or '(no version in the log)'}"
        yield from (f"{name}: {value}" for name, value in self.cells.items())
        yield from (f"note: {note}" for note in self.notes)


def read_log(text: str, where: str, engine: str | None = None) -> Log:
    """Read a start-up log of vLLM or SGLang.

    A log of no known engine, or one that prints no weights and no cache, is a UserError.
    """
    if len(text.encode()) > LARGEST_LOG:
        raise UserError(where, f"is larger than {LARGEST_LOG >> 20} MiB", "Cut the start-up out of it.")
    lines = [line[:LONGEST_LINE] for line in text.splitlines()]
    engine = engine or _engine_of(lines)
    if engine not in FORMS:
        expected = f"expected a start-up log of {' or '.join(FORMS)}"
        raise UserError(where, f"is of no engine that is known, {expected}", "Name it: --engine vllm")
    values, notes = _values(lines, FORMS[engine])
    cells: dict[str, float | int | str] = {}
    if model := _first(lines, MODEL[engine]):
        cells["model"] = model
    cells.update(_words(lines, engine))
    for column, value in values.items():
        cells[column] = int(value) if column in INTEGERS else value
    if not {"weights_gib_per_gpu", POOL, "kv_tokens", "kv_blocks"} & set(cells):
        read = ", ".join(cells) or "nothing"
        raise UserError(where, f"prints no weights and no KV cache (read: {read})", "Give the log of the start-up.")
    version = _first(lines, VERSION[engine])
    generation = re.search(r"Initializing an? (V[01]) LLM engine", text) or re.search(r"\b(V1)\b(?= LLM engine)", text)
    if version and generation:
        version = f"{version} ({generation[1]})"
    return Log(engine, version, cells, tuple(notes))


def _engine_of(lines: list[str]) -> str | None:
    counts = {engine: sum(bool(mark.search(line)) for line in lines) for engine, mark in MARKS.items()}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else None


def _first(lines: list[str], pattern: re.Pattern[str]) -> str:
    return next((found[1] for line in lines if (found := pattern.search(line))), "")


def _values(lines: list[str], forms: tuple[LogForm, ...]) -> tuple[dict[str, float], list[str]]:
    """Return the value of every column that a line gives, and notes on ranks that differ."""
    found: dict[str, list[float]] = {}
    take: dict[str, Callable[[list[float]], float]] = {}
    for form in forms:
        here: dict[str, list[float]] = {}
        for line in lines:
            if match := form.pattern.search(line):
                for column, text in zip(form.columns, match.groups(), strict=True):
                    value = float(text.replace(",", ""))
                    if column.startswith("+"):
                        here[column[1:]][-1] += value
                    else:
                        here.setdefault(column, []).append(value)
        # The first form that finds a column decides: later ones are other words for the same.
        for column, values in here.items():
            if column not in found:
                found[column], take[column] = values, form.take
    notes = []
    weights = found.get("weights_gib_per_gpu", [])
    if weights and max(weights) > (1 + SAME) * min(weights):
        notes.append(f"ranks hold {min(weights):g} to {max(weights):g} GiB of weights: the largest is taken")
    return {column: round(take[column](values), 6) for column, values in found.items()}, notes


def _words(lines: list[str], engine: str) -> Iterator[tuple[str, str | int]]:
    """Yield columns of words: formats, and what belongs into notes."""
    text = "\n".join(lines)
    quantised = re.search(r"\bquantization['\"]?\s*[=:]\s*['\"]?([\w\-]+)", text)
    dtype = re.search(r"\bdtype['\"]?\s*[=:]\s*['\"]?(?:torch\.)?(bfloat16|float16)", text)
    if quantised and quantised[1] != "None":
        yield "weight_dtype", quantised[1]
    elif dtype:
        yield "weight_dtype", "bf16" if dtype[1] == "bfloat16" else "fp16"
    if kv := re.search(r"\bkv_cache_dtype['\"]?\s*[=:]\s*['\"]?(?:torch\.)?(\w+)", text):
        yield "kv_dtype", kv[1]
    notes = []
    if re.search(r"enforce_eager['\"]?\s*[=:]\s*True|disable_cuda_graph=True", text):
        notes.append("eager")
    if re.search(r"enable_dp_attention=True", text):
        notes.append("dp attention")
    if notes:
        yield "notes", ", ".join(notes)
    sized = re.search(r"\bdp_size=(\d+)", text)
    if engine == "sglang" and sized and "dp attention" in notes:
        yield "dp", int(sized[1])
    if engine == "vllm" and re.search(r"enable_expert_parallel['\"]?\s*[=:]\s*True|--enable-expert-parallel", text):
        tensor = re.search(r"\btensor_parallel_size['\"]?\s*[=:]\s*(\d+)", text)
        yield "ep", int(tensor[1]) if tensor else 1


def check_version(log: Log, told: str, engines: Mapping[str, EngineSpec], where: str) -> str:
    """Return the version that a log's memory is predicted for; one that is not known is a UserError.

    `told` is what the user says it is; otherwise the log must name a version whose logs were read before.
    """
    read = "; ".join(log.shown())
    version = told or log.version
    number = version_in(version)
    if number is None:
        problem = f"does not say its version of {log.engine}; read was: {shortened(read, 400)}"
        raise UserError(where, problem, "Tell it: --engine-version 0.11.0")
    profile = profile_of(log.engine, version, dict(engines))
    newest = version_in(f"{profile.checked_to}.0") if profile and profile.checked_to else None
    if profile is None or (not told and newest and number[:2] > newest[:2]):
        upto = f", logs up to {profile.checked_to} were read before" if profile and profile.checked_to else ""
        problem = f"is of {log.engine} {version}, an unknown version{upto}; read was: {shortened(read, 400)}"
        raise UserError(where, problem, f"Compare it with the log, then tell it: --engine-version {version.split()[0]}")
    return version
