"""Memory of a model that is spread over several GPUs: what each GPU of every pipeline stage holds, and what fits.

A GPU holds the part of the model that `params.sharding` gives it, in the layout of the engine. The cache of a replica's
sequences lies on the GPUs of that replica: tensor parallelism splits its heads, one KV head being the least, and leaves
the latent of MLA whole on each. The experts of a layer lie on all GPUs of a stage, whole (expert parallelism) or in
parts, and serve the sequences of all replicas.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from prophet_moe import params
from prophet_moe.capacity.budget import Line
from prophet_moe.capacity.memory import Number
from prophet_moe.capacity.reference import evaluate, resident_experts, unique_experts
from prophet_moe.capacity.under_engine import EngineChoice, Held, memories_on
from prophet_moe.catalog import Architecture, GpuSpec, ModelSpec
from prophet_moe.catalog.architecture import Latent, Softmax
from prophet_moe.catalog.engine import EngineSpec
from prophet_moe.errors import UserError
from prophet_moe.params.sharding import Parallelism, check_parallelism
from prophet_moe.settings.scenario import Scenario

ROUTED = "routed experts"
"""Line of the experts, which alone differs between all experts resident and Prophet's set."""


@dataclass(frozen=True)
class Stage:
    """Each GPU of one pipeline stage."""

    number: int
    """Stage, from 0."""
    layers: int
    experts: int
    """Routed experts of a layer on the GPU, whole or in parts; 0 in a dense model."""
    held: Held
    """Memory constants of the GPU: E and k are those of the model, bytes those on this GPU."""
    metrics: dict[str, Number]
    """What `reference.evaluate` returns for the sequences of one replica; u(B) is that of the whole batch."""
    lines: tuple[Line, ...]
    """The budget of the GPU, in bytes."""


@dataclass(frozen=True)
class Spread:
    """A model on several GPUs of one kind at one batch size."""

    over: Parallelism
    sequences: int
    """Sequences of the fullest replica of attention."""
    stages: tuple[Stage, ...]

    def tightest(self, who: str) -> Stage:
        """Return the stage that allows the shortest context, or lacks most; `who` is baseline or prophet."""
        return min(self.stages, key=lambda s: (s.metrics[f"{who}_max_context"], s.metrics[f"{who}_free_bytes"]))

    def context(self, who: str) -> int:
        """Return the longest context in tokens that every GPU has memory for; 0: none."""
        return int(self.tightest(who).metrics[f"{who}_max_context"])


def parallelism(tensor: int, pipeline: int, data: int, expert: bool, engine: EngineSpec) -> Parallelism:
    """Return how an engine spreads a model by its options; `expert` puts whole experts on the GPUs of a stage.

    Replicas of attention multiply the tensor-parallel GPUs, and divide them in SGLang.
    """
    over = Parallelism(tensor, pipeline, 1, data, attention_inside=engine.engine == "sglang")
    return replace(over, expert=over.experts_over) if expert else over


def check_spread(arch: Architecture, over: Parallelism, expert: bool) -> None:
    """Refuse ways of spreading that make no sense: expert parallelism without experts or GPUs, stages of an encoder."""
    check_parallelism(arch, over)
    if expert and arch.moe is None:
        raise UserError("--ep", "the model is dense, expected experts to spread", "Leave --ep out.")
    if expert and over.experts_over == 1:
        raise UserError("--ep", "a stage has one GPU, expected several to spread experts over", "Give --tp or --dp.")
    if expert and arch.moe.experts < over.experts_over:
        problem = f"{over.experts_over} GPUs for the {arch.moe.experts} experts of a layer"
        raise UserError("--ep", problem, "Choose fewer GPUs, or leave --ep out to split every expert.")
    if arch.encoder is not None and over.pipeline > 1:
        problem = f"{over.pipeline} stages of an encoder-decoder, expected 1"
        raise UserError("--pp", problem, "Its encoder belongs to no stage; use --tp.")


def spread(
    spec: ModelSpec,
    gpu: str,
    listed: GpuSpec,
    scenario: Scenario,
    engine: EngineChoice,
    over: Parallelism,
    batch: int,
    popularity_cv: Number = 0,
    reserve: int | None = None,
) -> Spread:
    """Return what the GPUs of every stage hold, with every expert and with Prophet's resident set.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    gpu : str
        Name of the GPUs.
    listed : GpuSpec
        One of them.
    scenario : Scenario
        Formats, routing law, rule for resident experts.
    engine : EngineChoice
        The scenario's engine.
    over : Parallelism
        How the model is spread, over two GPUs at least.
    batch : int
        Sequences decoded together, over all replicas.
    popularity_cv : number
        Popularity CV of the experts.
    reserve : int, optional
        Measured runtime reserve of the GPU in bytes.

    Returns
    -------
    Spread
        Bytes and tokens. With expert parallelism the resident experts are taken to lie evenly on the GPUs.
    """
    sequences = math.ceil(batch / over.data)
    reserves = {gpu: reserve} if reserve is not None else {}
    stages = []
    for number, layers in enumerate(over.stage_layers(len(spec.architecture.layers()))):
        on = memories_on({spec.name: spec}, {gpu: listed}, scenario, engine, reserves, over, number)
        held = on[spec.name, gpu]
        held = replace(held, memory=replace(held.memory, popularity_cv=popularity_cv))
        metrics = _metrics(held, over, batch, sequences)
        experts = -(-spec.architecture.moe.experts // over.expert) if spec.architecture.moe else 0
        lines = tuple(_lines(held, metrics, sequences))
        stages.append(Stage(number, layers, experts, held, metrics, lines))
    return Spread(over, sequences, tuple(stages))


def _metrics(held: Held, over: Parallelism, batch: int, sequences: int) -> dict[str, Number]:
    """Evaluate a GPU for the sequences of its replica, with the experts that the whole batch needs."""
    memory, scenario = held.memory, held.scenario
    unique = unique_experts(scenario.routing, memory.experts, memory.top_k, memory.popularity_cv, batch)
    kept = resident_experts(scenario, memory, batch, unique)
    on_gpu = min(memory.experts, over.expert * math.ceil(kept / over.expert))
    metrics = evaluate(memory, held.device_bytes, sequences, scenario, resident=on_gpu)
    return metrics | {"unique_experts": unique, "resident_experts": kept}


def _lines(held: Held, metrics: dict[str, Number], sequences: int) -> Iterator[Line]:
    yield Line("device memory that an engine may use", held.device_bytes, held.device_bytes)
    fixed = {line.what: line.bytes for line in held.budget.lines if line.group == "weights" and line.what != ROUTED}
    fixed |= {
        "recurrent states of the batch": held.memory.state_bytes_per_sequence * sequences,
        "activations": metrics["activation_bytes"],
        "libraries, reserve and reservation": held.runtime_bytes,
    }
    taken = [
        Line(ROUTED, metrics["baseline_expert_bytes"], metrics["prophet_expert_bytes"]),
        *(Line(what, size, size) for what, size in fixed.items()),
        Line("Prophet's predictor", 0, held.memory.predictor_bytes),
        Line("Prophet's staging buffer", 0, metrics["staging_bytes"]),
    ]
    yield from (line for line in taken if line.baseline or line.prophet)
    yield Line("free for the KV cache", metrics["baseline_free_bytes"], metrics["prophet_free_bytes"])


def told(arch: Architecture, over: Parallelism) -> list[str]:
    """Return in sentences what lies on a GPU: heads and widths, the cache, experts, layers, replicas."""
    sentences, each = [], over.attention
    if each > 1:
        sentences.append(f"{each} GPUs share the heads and inner widths of a layer")
        sentences += [_cache_told(mixer, each) for mixer in arch.mixers.values() if isinstance(mixer, Softmax | Latent)]
    if arch.moe and over.experts_over > 1:
        whole = f"{-(-arch.moe.experts // over.expert)} of {arch.moe.experts} experts of a layer, whole"
        parts = f"a part of every expert, 1/{over.experts_over}"
        sentences.append(f"each GPU holds {whole if over.expert > 1 else parts}")
    if over.pipeline > 1:
        layers = over.stage_layers(len(arch.layers()))
        sentences.append(f"{over.pipeline} stages hold {', '.join(map(str, layers))} layers")
    if over.data > 1:
        sentences.append(f"{over.data} replicas of attention share the sequences of the batch")
    return list(dict.fromkeys(sentences))


def _cache_told(mixer: Softmax | Latent, over: int) -> str:
    if isinstance(mixer, Latent):
        return "the latent cache is whole on each of them"
    heads = -(-mixer.kv_heads // over)
    floor = ", the least" if mixer.kv_heads < over else ""
    return f"each caches {heads} of {mixer.kv_heads} KV heads{floor}"


def numbers(stage: Stage) -> dict[str, Number]:
    """Return the numbers of a GPU that a table of stages shows: bytes, and tokens per sequence."""
    memory, metrics = stage.held.memory, stage.metrics
    experts = memory.moe_layers * memory.experts * memory.expert_bytes
    return {
        "weights_bytes": memory.non_expert_bytes + experts,
        "expert_bytes": experts,
        "prophet_expert_bytes": metrics["prophet_expert_bytes"],
        "kv_bytes_per_token": memory.kv_bytes_per_token_growing,
        "kv_bytes_bounded": memory.kv_bytes_bounded,
        "baseline_free_bytes": metrics["baseline_free_bytes"],
        "prophet_free_bytes": metrics["prophet_free_bytes"],
        "baseline_max_context": metrics["baseline_max_context"],
        "prophet_max_context": metrics["prophet_max_context"],
    }


def total_weights(found: Spread) -> int:
    """Return the bytes of weights on all GPUs together, copies counted as often as they are held."""
    per_stage = found.over.experts_over
    return round(sum(numbers(stage)["weights_bytes"] * per_stage for stage in found.stages))


def whole_weights(spec: ModelSpec, scenario: Scenario) -> int:
    """Return the bytes of the model's weights once."""
    return sum(params.weight_bytes(spec.architecture, scenario.precision_of(spec.precision)).values())
