"""Expert FFNs and the attention of one token, each over several copies of its weights or KV cache in turns."""

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import sdpa_kernel
from tqdm import tqdm

from prophet_moe.collect import machine
from prophet_moe.collect.allocation import is_lack_of_memory
from prophet_moe.collect.expert import expert_ffn
from prophet_moe.collect.hardware.plan import BACKENDS, AttentionPlan, Expert, Geometry, Sampling
from prophet_moe.collect.hardware.timing import DTYPE, WARMUP, kernel_columns, random, row
from prophet_moe.collect.measurement import Rows, seconds


def sampled(
    sampling: Sampling, measurement: str, call: Callable[..., object], operands: list[tuple], **configuration: Any
) -> Rows:
    """Measure `call(*operand)` with operands taken in turns: launched one by one and, on a GPU, as a CUDA graph."""
    calls = len(operands) * math.ceil(sampling.calls_per_sample / len(operands))

    def sample() -> None:
        for operand in islice(cycle(operands), calls):
            call(*operand)

    def timed(run: Callable[[], object], launch: str) -> dict:
        samples = seconds(run, sampling.repeats, WARMUP)
        return row(measurement, samples, calls, **configuration, copies=len(operands), **kernel_columns(launch))

    rows = [timed(sample, "eager")]
    if machine.on_gpu():
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            sample()
        rows.append(timed(graph.replay, "graph"))
    return rows


def _rotated(sampling: Sampling, shapes: Sequence[tuple[int, ...]]) -> tuple[int, list[tuple[torch.Tensor, ...]]]:
    """Bytes of one set of tensors of `shapes`, and as many sets as hold the plan's rotated bytes together."""
    size = sum(map(math.prod, shapes)) * DTYPE.itemsize
    return size, [tuple(random(*shape) for shape in shapes) for _ in range(math.ceil(sampling.rotated_bytes / size))]


def expert_rows(sampling: Sampling, shape: Expert, tokens: list[int]) -> Rows:
    """Measure one expert at each number of tokens, a row each."""
    raised = 2 * shape.inner if shape.gated else shape.inner
    size, weights = _rotated(sampling, [(raised, shape.hidden), (shape.hidden, shape.inner)])
    operands = [(up.T, down.T) for up, down in weights]
    rows = []
    for count in tokens:
        call = partial(expert_ffn, random(count, shape.hidden), gated=shape.gated)
        rows += sampled(sampling, "expert_ffn", call, operands, **asdict(shape), tokens=count, bytes=size)
    return rows


def attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return attention (batch, heads, 1, head_dim) of `query` over a cache (batch, kv_heads, context, head_dim)."""
    return F.scaled_dot_product_attention(query, keys, values, enable_gqa=query.shape[1] != keys.shape[1])


def attend_latent(query: torch.Tensor, latent: torch.Tensor, *, values: int) -> torch.Tensor:
    """Attention (batch, heads, values) of `query` (batch, heads, width) over a latent cache (batch, context, width)."""
    weights = (query * query.shape[-1] ** -0.5 @ latent.mT).softmax(-1)
    return weights @ latent[..., :values]


def attention_rows(sampling: Sampling, shape: Geometry, batch: int, plan: AttentionPlan) -> Rows:
    """Return the rows of one geometry and batch by context and backend; a backend that refuses the shape has none."""
    rows = []
    for context in plan.contexts:
        if shape.latent_values:
            cache_shapes: list[tuple[int, ...]] = [(batch, context, shape.head_dim)]
            query = random(batch, shape.heads, shape.head_dim)
            call = partial(attend_latent, query, values=shape.latent_values)
            ways, sharing = {"matmul": nullcontext()}, "one latent"
        else:
            cache_shapes = [(batch, shape.kv_heads, context, shape.head_dim)] * 2
            call = partial(attend, random(batch, shape.heads, 1, shape.head_dim))
            ways = {name: sdpa_kernel(BACKENDS[name]) for name in plan.backends}
            sharing = "none" if shape.heads == shape.kv_heads else "enable_gqa"
        size, caches = _rotated(sampling, cache_shapes)
        configuration = asdict(shape) | {"head_sharing": sharing, "batch": batch, "context": context, "bytes": size}
        for backend, chosen in ways.items():
            with chosen:
                if refusal := _refusal(partial(call, *caches[0])):
                    left_out = f"attention_decode-{shape.model}-{batch} at {context}: {backend} left out: {refusal}"
                    tqdm.write(left_out, file=sys.stderr)
                    continue
                rows += sampled(sampling, "attention_decode", call, caches, **configuration, backend=backend)
    return rows


def _refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except RuntimeError as error:
        if is_lack_of_memory(error):
            raise
        return str(error).splitlines()[0]
    return ""
