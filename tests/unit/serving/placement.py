"""A plain reference for models over several GPUs: every expert, inner column and KV head is placed, then counted.

It shares no formula with `capacity.several_gpus`: GPUs are objects, and what they hold is added up one part at a time.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from prophet_moe.catalog.architecture import Architecture, Latent, Softmax
from prophet_moe.params.sharding import Parallelism


@dataclass
class Gpu:
    """One GPU: its place in the layout, and what was placed on it."""

    stage: int
    copy: int
    rank: int
    expert_parameters: int = 0
    kv_values: int = 0
    """Values that a token of a sequence of its copy adds to its cache."""
    layers: list[int] = field(default_factory=list)


def placed(arch: Architecture, over: Parallelism) -> list[Gpu]:
    """Return every GPU of a layout with the experts and the cache that it holds."""
    gpus = [
        Gpu(stage, copy, rank)
        for stage in range(over.pipeline)
        for copy in range(over.data)
        for rank in range(over.tensor)
    ]
    for layer, block in enumerate(arch.layers()):
        for number, gpu in enumerate(here := [each for each in gpus if each.stage == _stage_of(layer, arch, over)]):
            gpu.layers.append(layer)
            if block.ffn and arch.ffns[block.ffn].kind == "moe":
                gpu.expert_parameters += _expert_parameters(arch, over, number, len(here))
            if block.mixer:
                gpu.kv_values += _kv_values(arch.mixers[block.mixer], gpu.rank, over.tensor)
    return gpus


def _stage_of(layer: int, arch: Architecture, over: Parallelism) -> int:
    """Deal layers out in order; where they do not divide, the stages before the last one have one more."""
    stages = [[] for _ in range(over.pipeline)]
    each, more = divmod(len(arch.layers()), over.pipeline)
    wide = set(range(over.pipeline - 1 - more, over.pipeline - 1))
    todo = iter(range(len(arch.layers())))
    for stage, layers in enumerate(stages):
        layers += [next(todo) for _ in range(each + (stage in wide))]
    return next(stage for stage, layers in enumerate(stages) if layer in layers)


def _expert_parameters(arch: Architecture, over: Parallelism, gpu: int, gpus: int) -> int:
    moe = arch.moe
    per_column = (moe.latent or arch.hidden) * (3 if moe.gated else 2)
    if over.expert > 1:
        each = -(-moe.experts // over.expert)
        own = sum(expert // each == gpu for expert in range(moe.experts))
        return own * moe.ffn * per_column
    each = -(-moe.ffn // gpus)
    columns = int((np.arange(moe.ffn) // each == gpu).sum())
    return moe.experts * columns * per_column


def _kv_values(mixer, rank: int, ranks: int) -> int:
    """Count the KV heads that the query heads of a rank read; the latent of MLA is read by all heads."""
    if isinstance(mixer, Latent):
        return mixer.kv_lora_rank + mixer.rope_head_dim
    if not isinstance(mixer, Softmax):
        return 0
    group = mixer.heads // mixer.kv_heads
    queries = range(rank * mixer.heads // ranks, (rank + 1) * mixer.heads // ranks)
    return len({query // group for query in queries}) * (mixer.head_dim + mixer.value_dim)


def remote_share(experts: int, gpus: int) -> float:
    """Return the share of (GPU of a token, expert) pairs that lie apart."""
    each = -(-experts // gpus)
    pairs = [(gpu, expert // each) for gpu in range(gpus) for expert in range(experts)]
    return sum(here != there for here, there in pairs) / len(pairs)


def remote_gpus(experts: int, top_k: int, gpus: int) -> float:
    """Return how many other GPUs a token reaches in the mean, over every choice of k experts and every own GPU."""
    each = -(-experts // gpus)
    reached = defaultdict(list)
    for chosen in combinations(range(experts), top_k):
        for here in range(gpus):
            reached[here].append(len({expert // each for expert in chosen} - {here}))
    return float(np.mean([count for counts in reached.values() for count in counts]))
