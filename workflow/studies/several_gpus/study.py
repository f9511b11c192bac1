"""The declaration of the study of models over several GPUs."""

from typing import Annotated, ClassVar

from pydantic import Field

from prophet_moe.settings.fields import (
    LARGEST_CONTEXT,
    LARGEST_RATIO,
    LARGEST_SPEED,
    Batches,
    Names,
    Share,
    StudySettings,
)
from prophet_moe.study import Figure, Study
from prophet_moe.tables import GPU, MODEL, Table, flag, gigabytes, integer, number, text

MOST_GPUS = 64
"""Upper limit of the GPUs of one system."""

Count = Annotated[int, Field(ge=1, le=MOST_GPUS)]


class SeveralGpusSettings(StudySettings):
    """Models over several GPUs: which GPUs, how many, how they are linked, and what an hour costs."""

    named_models: ClassVar[tuple[str, ...]] = ("curve_models",)
    named_gpus: ClassVar[tuple[str, ...]] = ("gpus",)

    gpus: Names = ["A100-80GB", "H200-141GB"]
    """GPUs of the table, names of config/gpus.yaml. The figure and the table of layouts show the first."""
    current_models: list[str] = [
        "gpt-oss-120b",
        "Qwen3-Coder-480B-A35B",
        "GLM-4.5",
        "DeepSeek-V3.1",
        "Kimi-K2-Thinking",
    ]
    """Models of config/models/current/ beside those of the grid, in the formats that their authors ship."""
    curve_models: Names = ["DeepSeek-V3-671B", "Qwen3-235B"]
    """Models of the grid whose context by the number of GPUs the figure draws."""
    gpu_counts: Annotated[list[Count], Field(min_length=1)] = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 40, 48, 56, 64]
    """Numbers of GPUs that are tried: a machine in parts, then whole machines."""
    layout_counts: Annotated[list[Count], Field(min_length=1)] = [1, 2, 4, 8, 16, 32, 64]
    """Numbers of GPUs of the table of layouts and of the curves."""
    batch_sizes: Batches = [1, 16]
    """Sequences of the whole system that are decoded together; the table of layouts has the last."""
    context_tokens: Annotated[int, Field(gt=0, le=LARGEST_CONTEXT)] = 8192
    """Context of every sequence that a system must hold, or the native one of a model if that is shorter."""
    slowdown_limit: Annotated[float, Field(ge=1, le=LARGEST_RATIO)] = 2.0
    """Slowdown on demand within which expert slots count as useful."""
    communication_gib: Annotated[float, Field(ge=0, le=100)] = 1.08
    """GiB that libraries of communication take on each of several GPUs: non_torch_fast_link_gib less non_torch_gib of
    config/engines/vllm.yaml, which are fitted to logs."""
    dispatch_bytes: Annotated[float, Field(gt=0, le=4)] = 2.0
    """Bytes of a value on its way to an expert on another GPU: 2 in 16 bits, 1 in 8."""
    combine_bytes: Annotated[float, Field(gt=0, le=4)] = 2.0
    """Bytes of a value on its way back."""
    nvlink_gb_per_s: dict[str, Annotated[float, Field(gt=0, le=LARGEST_SPEED)]] = {
        "A100-80GB": 300.0,
        "H100-80GB": 450.0,
        "H200-141GB": 450.0,
    }
    """Datasheet of the link among GPUs of a machine, one direction, GB/s by GPU. A GPU without one uses PCIe."""
    nvlink_share: Share = 0.82
    """Share of it that is reached: an all-reduce over 8 H200, docs/times.md; the all-to-all of DeepEP reaches more."""
    network_gb_per_s: Annotated[float, Field(gt=0, le=LARGEST_SPEED)] = 50.0
    """Datasheet of the network card of a GPU, one direction: 400 Gb/s."""
    network_share: Share = 0.86
    """Share of it that is reached: 43 of 50 GB/s over 16 GPUs (README of deepseek-ai/DeepEP)."""
    usd_per_gpu_hour: dict[str, Annotated[float, Field(gt=0, le=1000)]] = {"A100-80GB": 1.49, "H200-141GB": 3.50}
    """Price of a GPU-hour by GPU: list prices of one provider each, of April 2026 (jarvislabs.ai/blog/h100-vs-a100) and
    of May 2026 (gpuaas.com/blog/h200-vs-h100-rental-decision-guide-2026). Without one, costs are in GPU-hours alone."""


def _both(name: str, unit: str, description: str) -> tuple:
    return tuple(
        number(f"{who}_{name}", unit, f"{description} {where}")
        for who, where in (("baseline", "every expert resident."), ("prophet", "slots by the scenario's rule."))
    )


SEVERAL_GPUS = Table(
    "table18_several_gpus",
    (
        MODEL,
        text("formats", "Formats of the weights and of the KV cache."),
        GPU,
        integer("batch_size", "", "Sequences of the whole system, B."),
        integer("context", "tokens", "Context of every sequence that a system must hold."),
        integer(
            "baseline_gpus", "", "Fewest GPUs that hold every expert and that context; empty: more than were tried."
        ),
        text("baseline_layout", "Layout of these GPUs: of those that hold it, the one with the fastest step."),
        integer("prophet_gpus", "", "Fewest GPUs that hold the resident set of the scenario's rule and that context."),
        text("prophet_layout", "Layout of these GPUs: of those that hold it, the one with the fastest step on demand."),
        text("prophet_only", "Numbers of GPUs on which the model fits only with expert slots; empty: none."),
        integer("gpus_saved", "", "baseline_gpus less prophet_gpus; empty where one is empty."),
        integer("slots", "experts", "Most slots per layer on each of prophet_gpus that leave room for the context."),
        integer("local_experts", "experts", "Experts per layer of such a GPU: all, of each a part, or some, whole."),
        number("share_resident_pct", "%", "slots over local_experts."),
        gigabytes(
            "baseline_expert_gb_per_gpu", "Experts of a GPU, all of its own, on prophet_gpus.", "baseline_experts"
        ),
        gigabytes("prophet_expert_gb_per_gpu", "Experts of a GPU in these slots, on prophet_gpus.", "prophet_experts"),
        gigabytes("host_gb", "Experts without a slot on any of prophet_gpus, which hosts must hold.", "host_bytes"),
        number(
            "kv_bytes_per_token_per_gpu", "B", "KV cache that a token of a sequence adds on a GPU, on prophet_gpus."
        ),
        gigabytes("activation_gb_per_gpu", "Activations of a GPU, on prophet_gpus.", "activations"),
        number("baseline_step_ms", "ms", "Estimated decode step on baseline_gpus at that context."),
        number("prophet_step_ms", "ms", "Estimated decode step on prophet_gpus if every expert were there."),
        number("hit_rate", "", "Share of the distinct experts of a layer-step that are in slots without prediction."),
        text(
            "hit_rate_basis",
            "What it rests on: the simulated routing, experts in slots at random, or all experts in slots.",
        ),
        number("slowdown_on_demand", "", "Step that fetches the others on demand, over prophet_step_ms."),
        number("slowdown_least", "", "The same with perfect prefetch of these bytes: no less is possible."),
        number("slowdown_limit", "", "Slowdown within which expert slots count as useful."),
        integer("gpus_within_limit", "", "Fewest GPUs on which a step on demand keeps within it."),
        number(
            "all_to_all_kb_per_token", "kB", "Bytes that tokens send to experts and back, over all of prophet_gpus."
        ),
        number("exchanged_kb_per_token", "kB", "All bytes that these GPUs send one another per decoded token."),
        *_both(
            "gpu_hours",
            "GPU-h",
            "GPU-hours that keep a million tokens of context for an hour, if the context fills these GPUs,",
        ),
        *_both("usd", "USD", "The same at usd_per_gpu_hour; empty without a price,"),
        text("basis", "What times rest on: estimated, from operators or a share of the bandwidth."),
    ),
)
LAYOUTS = Table(
    "parallel_layouts",
    (
        MODEL,
        GPU,
        integer("batch_size", "", "Sequences of the whole system, B."),
        integer("gpus", "", "GPUs of the system."),
        text("layout", "Layout: pp stages, dp copies of attention, tp GPUs that share matrices, ep whole experts."),
        integer("tp", "", "GPUs that share matrices."),
        integer("dp", "", "Copies of attention, data parallel."),
        integer("pp", "", "Stages of the pipeline."),
        integer("ep", "", "Expert-parallel GPUs; 1: experts are split like other matrices."),
        text("fit_state", "both, prophet_only or neither, with a token of context."),
        flag("longest", "Whether no layout of that many GPUs holds a longer context with expert slots."),
        integer("resident_experts", "experts", "Slots per layer on a GPU by the scenario's rule."),
        integer("local_experts", "experts", "Experts per layer of a GPU: all, of each a part, or some, whole."),
        gigabytes("baseline_expert_gb_per_gpu", "Experts of a GPU, every one of its own.", "baseline_expert_bytes"),
        gigabytes("prophet_expert_gb_per_gpu", "Experts of a GPU in these slots.", "prophet_expert_bytes"),
        gigabytes(
            "other_gb_per_gpu", "Everything else but the KV cache: weights, activations, reserve.", "fixed_bytes"
        ),
        gigabytes("activation_gb_per_gpu", "Activations among it.", "activation_bytes"),
        number("kv_bytes_per_token_per_gpu", "B", "KV cache that a token of a sequence adds on a GPU."),
        integer("baseline_max_context", "tokens", "Longest context per sequence with every expert, memory limit."),
        integer("prophet_max_context", "tokens", "Longest context per sequence with these slots, memory limit."),
        number("baseline_context_per_gpu", "tokens", "Context of all sequences over the GPUs, every expert resident."),
        number("prophet_context_per_gpu", "tokens", "Context of all sequences over the GPUs, with these slots."),
        number("sums_kb_per_token", "kB", "Bytes of sums over tensor-parallel GPUs per decoded token, all GPUs."),
        number("dispatch_kb_per_token", "kB", "Bytes of tokens to experts on other GPUs, one vector per expert."),
        number("combine_kb_per_token", "kB", "Bytes of results back."),
        number(
            "once_per_gpu_kb_per_token", "kB", "Both, where a token crosses once per GPU that has any of its experts."
        ),
        number("stages_kb_per_token", "kB", "Bytes between pipeline stages per decoded token."),
        number("nvlink_ms", "ms", "Least time of a step's bytes of a GPU over NVLink; empty where it has none."),
        number("pcie_ms", "ms", "The same over PCIe."),
        number("network_ms", "ms", "The same over the network."),
    ),
)
HELD = Table(
    "parallel_observed",
    (
        text("id", "Id of the observation in resources/observations/memory.csv."),
        text("engine", "Engine of the server, as in the observations."),
        text("model", "Model as the source names it."),
        text("gpu", "GPU as the source names it."),
        integer("gpus", "", "GPUs of the server."),
        text("layout", "Layout of the server."),
        text("quantity", "weights or kv_bytes_per_token of one GPU, or kv_tokens of the pool that it printed."),
        text("unit", "Unit of the values."),
        number("measured", "", "What the engine printed."),
        number(
            "counted", "", "What this study counts, without terms of any engine; of kv_tokens, in the printed pool."
        ),
        number("predicted", "", "What the engine's profile predicts; of kv_tokens, with the pool predicted too."),
        number("counted_error_pct", "%", "counted over measured, minus 1."),
        number("predicted_error_pct", "%", "predicted over measured, minus 1."),
    ),
)
FIGURE = Figure("several_gpus", 7.0, 4.6, table=SEVERAL_GPUS.name)

STUDY = Study(
    id="several_gpus",
    question="How many GPUs does a model need, and what do expert slots change?",
    settings=SeveralGpusSettings,
    tables=(SEVERAL_GPUS, LAYOUTS, HELD),
    figures=(FIGURE,),
    reports=("000:597",),
    minutes=1.9,
)
