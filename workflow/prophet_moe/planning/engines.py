"""A split as the command line of every engine, in its own unit, and the one counter that checks it afterwards.

Flags, units and counters were read in the sources and threads that SOURCES names. None of the engines was run.
"""

import math
from dataclasses import dataclass

from prophet_moe.planning.solve import Split
from prophet_moe.units import GIB

SOURCES = {
    "vLLM": "vllm-project/vllm#37190, vllm/v1/metrics/loggers.py",
    "llama.cpp": "ggml-org/llama.cpp#27861, #14992",
    "llama.cpp, stock": "ggml-org/llama.cpp#15077",
    "FreeToken": "FlashML-org/FreeToken: python/freetoken/server/args.py, #231",
    "KTransformers": "kvcache-ai/ktransformers: doc/en/kt-kernel/experts-sched-Tutorial.md",
    "SGLang": "sgl-project/sglang: python/sglang/srt/utils/offloader.py, docs/advanced_features/server_arguments.md",
    "MoE-Infinity": "TorchMoE/MoE-Infinity: README.md",
    "imp": "kekzl/imp: docs/CONFIG.md, src/exec/expert_cache.cu, #1374, #2061",
}
"""Where flag, unit and counter of an engine stand: owner/repository#number, or a path in a repository."""
PROJECTIONS = 3
"""Matrices of an expert that imp counts as slots of their own."""
LARGEST_SHARE = 90
"""Most percent of free VRAM that imp takes for them."""
PAGE = 128
"""Tokens of the largest page of FreeToken, of which its number of tokens is a multiple."""


@dataclass(frozen=True)
class EngineCommand:
    """How one engine is told a split."""

    engine: str
    unit: str
    """What the engine counts."""
    value: float | None
    """The split in that unit; None where the engine refuses it, or nothing need be told."""
    command: str
    counter: str
    """What to look at afterwards, and what it should then show."""
    note: str = ""
    """What the command does not do, or why the engine refuses."""

    @property
    def source(self) -> str:
        """Return where flag, unit and counter stand."""
        return SOURCES[self.engine]


def per_layer(found: Split) -> int:
    """Return whole experts of each layer: vLLM, llama.cpp and KTransformers."""
    return found.per_layer


def global_experts(found: Split) -> int:
    """Return experts of all layers together: FreeToken."""
    return found.slots


def projections_per_layer(found: Split) -> int:
    """Return matrices of each layer: imp counts three an expert."""
    return PROJECTIONS * found.slots // found.layers


def layers_on_host(found: Split) -> int:
    """Return the layers whose experts stay on the CPU where only whole layers fit: llama.cpp's --n-cpu-moe."""
    return found.layers - found.slots // found.experts


def host_gib(found: Split, expert_bytes: float) -> int:
    """Return the whole GiB of weights that stay in host memory: SGLang's --cpu-offload-gb, which counts 2^30 bytes."""
    return math.ceil((found.layers * found.experts - found.slots) * expert_bytes / GIB)


def memory_ratio(found: Split, expert_bytes: float, device_bytes: float) -> float:
    """Return the share of the device that experts take, in hundredths rounded down: MoE-Infinity."""
    return math.floor(100 * found.slots * expert_bytes / device_bytes) / 100


def budget_pct(found: Split, expert_bytes: float, room_bytes: float) -> int:
    """Return the percent of what is free after the weights that experts take, rounded down: imp, which stops at 90."""
    return min(LARGEST_SHARE, math.floor(100 * found.slots * expert_bytes / room_bytes))


def commands(
    found: Split, model: str, expert_bytes: float, device_bytes: float, room_bytes: float
) -> list[EngineCommand]:
    """Return every engine's command for a split, or for all experts where all have a slot."""
    whole = found.slots >= found.layers * found.experts
    tokens, batch = found.context * found.batch, found.batch
    hits = f"{found.hit.middle:.3f} ({found.hit.low:.3f} to {found.hit.high:.3f})"
    misses = f"{1 - found.hit.middle:.3f} ({1 - found.hit.high:.3f} to {1 - found.hit.low:.3f})"
    speed = found.tokens_per_s
    rate = f"{speed.middle:,.3g} tok/s ({speed.low:,.3g} to {speed.high:,.3g})" if speed else "not known here"
    if whole:
        hits, misses = "1, nothing is offloaded", "0, nothing is offloaded"
    vllm = f"vllm serve {model} --max-model-len {found.context} --max-num-seqs {batch}"
    llama = f"llama-server -m {model.rpartition('/')[2]}.gguf -ngl 999 -c {tokens} -np {batch}"
    sglang = f"python -m sglang.launch_server --model-path {model} --context-length {found.context}"
    sglang += f" --max-running-requests {batch}"
    paged = math.ceil(tokens / PAGE) * PAGE
    free = f"ft serve --model {model} --num-tokens {paged} --max-running-requests {batch}"
    ratio = memory_ratio(found, expert_bytes, device_bytes)
    pct = budget_pct(found, expert_bytes, room_bytes) if room_bytes > 0 else 0
    return [
        EngineCommand(
            "vLLM",
            "experts a layer",
            None if whole else per_layer(found),
            vllm if whole else f"{vllm} --moe-expert-cache-size {per_layer(found)}",
            f"generation throughput of its log: {rate}; its thread names no counter of hits",
            "pull request 37190, not merged; it evicts by frequency and recency",
        ),
        EngineCommand(
            "llama.cpp",
            "experts a layer",
            None if whole else per_layer(found),
            llama if whole else f"{llama} -cmoe --moe-expert-cache {per_layer(found)}",
            f"eval time of its log, tokens per second; its thread names no counter of hits, expected {hits}",
            "pull request 27861, not merged; the CPU computes misses, and a step uploads only some of them",
        ),
        EngineCommand(
            "llama.cpp, stock",
            "layers whose experts are on the CPU",
            None if whole else layers_on_host(found),
            llama if whole else f"{llama} --n-cpu-moe {layers_on_host(found)}",
            "eval time of its log, tokens per second",
            "whole layers, no cache: the plan's hit rate does not hold",
        ),
        _freetoken(found, free, whole, misses),
        EngineCommand(
            "KTransformers",
            "experts a layer",
            None if whole else per_layer(found),
            sglang if whole else f"{sglang} --kt-num-gpu-experts {per_layer(found)}",
            "gen throughput of its log, token/s",
            "experts are placed, not cached, and the CPU computes the others: the plan's hit rate does not hold",
        ),
        EngineCommand(
            "SGLang",
            "GiB of weights in host memory",
            None if whole else host_gib(found, expert_bytes),
            sglang if whole else f"{sglang} --cpu-offload-gb {host_gib(found, expert_bytes)}",
            "gen throughput of its log, token/s",
            "no expert cache: whole layers in order, attention too, are copied in every step",
        ),
        EngineCommand(
            "MoE-Infinity",
            "share of device memory",
            ratio,
            f'MoE("{model}", {{"offload_path": "offload", "device_memory_ratio": {ratio:g}}})',
            f"tokens per second: {rate}; its page names no counter of hits",
        ),
        EngineCommand(
            "imp",
            "percent of free VRAM (projections a layer)",
            None if whole else pct,
            "moe.expert_cache_budget_pct=0" if whole else f"moe.expert_cache_budget_pct={pct}",
            f"hit rate that it prints: {hits}",
            f"about {projections_per_layer(found):,} slots a layer in its log, {PROJECTIONS} an expert",
        ),
    ]


def _freetoken(found: Split, free: str, whole: bool, misses: str) -> EngineCommand:
    """Return FreeToken's command; below 2E slots it refuses to start, unless overlap is off, below E always."""
    counter = f"miss_rate of --moe-collect-stats (pull request 231, not merged): {misses}"
    slots, unit = global_experts(found), "experts of all layers"
    if not whole and slots < found.experts:
        reason = f"refused: {slots:,} slots are fewer than E = {found.experts:,}, a layer's prefill buffer"
        return EngineCommand("FreeToken", unit, None, "", counter, reason)
    command = f"{free} --moe-backend offload --moe-cache-size {slots}"
    if not whole and slots < 2 * found.experts:
        note = f"below 2E = {2 * found.experts:,}: only without overlap; each prefill then evicts E experts"
        return EngineCommand("FreeToken", unit, slots, f"{command} --disable-moe-prefill-overlap", counter, note)
    return EngineCommand("FreeToken", unit, slots, command, counter, "" if whole else "each prefill evicts 2E experts")
