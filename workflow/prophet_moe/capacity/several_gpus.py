"""Memory of a model that is spread over several GPUs: what each GPU of every pipeline stage holds, and what fits.

A GPU holds the part of the model that `params.sharding` gives it, in the layout of the engine. The cache of a replica's
sequences lies on the GPUs of that replica: tensor parallelism splits its heads, one KV head being the least, and leaves
the latent of MLA whole on each. The experts of a layer lie on all GPUs of a stage, whole (expert parallelism) or in
parts, and serve the sequences of all replicas.

Prophet has slots on every GPU. Where experts are split, a slot holds the GPU's part of an expert, and every GPU needs
what the whole batch needs. Where experts are whole, a GPU needs those of its own experts that the batch chooses:
u(B) / n in the mean, if all experts are alike.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist

from prophet_moe import params
from prophet_moe.capacity import reference
from prophet_moe.capacity.budget import Line
from prophet_moe.capacity.engine import engine_stages
from prophet_moe.capacity.memory import ModelMemory, Number, model_memory
from prophet_moe.capacity.under_engine import NO_ENGINE, PLAIN, EngineChoice, Held, held_on
from prophet_moe.catalog import Architecture, GpuSpec, ModelSpec
from prophet_moe.catalog.architecture import Latent, Softmax
from prophet_moe.catalog.engine import EngineSpec
from prophet_moe.errors import UserError
from prophet_moe.params.sharding import Parallelism, check_parallelism, stage_patterns
from prophet_moe.routing.urn import ROUNDING_GUARD
from prophet_moe.settings.scenario import Scenario

ROUTED = "routed experts"
"""Line of the experts, which alone differs between all experts resident and Prophet's set."""


@dataclass(frozen=True)
class Stage:
    """Each GPU of the pipeline stages that hold the same layers and embeddings."""

    numbers: tuple[int, ...]
    """These stages, from 0."""
    layers: int
    held: Held
    """Memory of the GPU: `memory.experts` are the experts of a layer on it, all in parts or some of them whole."""

    @property
    def memory(self) -> ModelMemory:
        """Return the memory constants of the GPU."""
        return self.held.memory


@dataclass(frozen=True)
class Filled:
    """A GPU of a stage with the sequences of a batch."""

    stage: Stage
    metrics: dict[str, Number]
    """What `reference.evaluate` returns for the sequences of one replica; u(B) is that of the whole batch."""


@dataclass(frozen=True)
class Load:
    """A batch on a model over several GPUs: its fullest replica on the GPUs of every stage."""

    sequences: int
    """Sequences of the fullest replica of attention."""
    gpus: tuple[Filled, ...]
    """A GPU of each of the stages that differ."""

    def tightest(self, who: str) -> Filled:
        """Return the GPU that allows the shortest context, or lacks most; `who` is baseline or prophet."""
        return min(self.gpus, key=lambda g: (g.metrics[f"{who}_max_context"], g.metrics[f"{who}_free_bytes"]))

    def context(self, who: str) -> int:
        """Return the longest context in tokens that every GPU has memory for; 0: none."""
        return int(self.tightest(who).metrics[f"{who}_max_context"])


@dataclass(frozen=True)
class Spread:
    """A model on GPUs of one kind in one layout, under a scenario and its engine."""

    spec: ModelSpec
    scenario: Scenario
    whole: ModelMemory
    """The memory constants of the whole model without an engine, with its popularity CV."""
    over: Parallelism
    stages: tuple[Stage, ...]
    """The stages that differ, in order."""

    @property
    def local_experts(self) -> int:
        """Return the experts of a layer on a GPU: all of them in parts, or some of them whole."""
        return -(-self.whole.experts // self.over.expert)

    def sequences(self, batch: int) -> int:
        """Return the sequences of a batch that the fullest replica of attention serves."""
        return -(-batch // self.over.data)

    def unique_experts(self, batch: int) -> float:
        """Return u(B), the distinct experts of a layer that the batch of the whole system chooses."""
        whole = self.whole
        return reference.unique_experts(self.scenario.routing, whole.experts, whole.top_k, whole.popularity_cv, batch)

    def resident_experts(self, batch: int) -> Number:
        """Return the slots per layer that a GPU needs by the scenario's rule: for whole experts, or their parts."""
        unique = self.unique_experts(batch)
        if self.over.expert == 1:
            return reference.resident_experts(self.scenario, self.whole, batch, unique)
        return _resident_of_whole_experts(self, batch, unique)

    def load(self, batch: int, slots: Number | None = None) -> Load:
        """Return what the GPUs hold and which contexts fit.

        Parameters
        ----------
        batch : int
            Sequences of the whole system.
        slots : number, optional
            Slots per layer on a GPU, instead of those of the scenario's rule.
        """
        sequences, unique = self.sequences(batch), self.unique_experts(batch)
        kept = self.resident_experts(batch) if slots is None else slots
        return Load(sequences, tuple(_filled(stage, sequences, kept, unique) for stage in self.stages))


def _filled(stage: Stage, sequences: int, slots: Number, unique: float) -> Filled:
    held = stage.held
    metrics = reference.evaluate(held.memory, held.device_bytes, sequences, held.scenario, resident=slots)
    return Filled(stage, metrics | {"unique_experts": unique})


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
    over: Parallelism,
    engine: EngineChoice = NO_ENGINE,
    popularity_cv: Number = 0,
    reserve: int | None = None,
) -> Spread:
    """Return a model over several GPUs; a way of spreading that engines refuse is a UserError.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    gpu : str
        Name of the GPUs.
    listed : GpuSpec
        One of them.
    scenario : Scenario
        Formats, routing law, rule for resident experts; its architectures are the published ones.
    over : Parallelism
        How the model is spread.
    engine : EngineChoice
        The scenario's engine.
    popularity_cv : number
        Popularity CV of the experts.
    reserve : int, optional
        Measured runtime reserve of the GPU in bytes.
    """
    check_parallelism(spec.architecture, over)
    over = engine_stages(over, spec.architecture, engine.profile or PLAIN)
    whole = model_memory(spec, scenario)
    stages = tuple(
        Stage(numbers, layers, held_on(spec, whole, gpu, listed, scenario, engine, reserve, over, numbers[0]))
        for numbers, layers in _alike(spec.architecture, over)
    )
    return Spread(spec, scenario, replace(whole, popularity_cv=popularity_cv), over, stages)


def _alike(arch: Architecture, over: Parallelism) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield the stages that hold the same layers and embeddings by their numbers, and the number of their layers."""
    found: dict[tuple[str, bool, bool], list[int]] = {}
    for stage, here in enumerate(stage_patterns(arch, over)):
        found.setdefault((here, stage == 0, stage == over.pipeline - 1), []).append(stage)
    yield from ((tuple(numbers), len(here)) for (here, _, _), numbers in found.items())


def _resident_of_whole_experts(held: Spread, batch: int, unique: float) -> Number:
    """Return the slots that a GPU with some of the experts needs.

    By the quantile, every one of n GPUs has enough in as many layer-steps as the rule says: each alone misses a share
    of (1 - quantile) / n (Bonferroni). The covariance of two experts is that of the whole layer.
    """
    whole, scenario, local = held.whole, held.scenario, held.local_experts
    most = min(local, whole.top_k * batch)
    needed = unique * local / whole.experts
    if scenario.resident == "fractional":
        return needed
    if scenario.resident == "mean":
        return min(local, max(1, _up(needed)))
    if scenario.resident == "never_overflows":
        return most
    popularity_cv = whole.popularity_cv if scenario.routing.law == "dirichlet_occupancy" else 0.0
    deviation = reference.deviation(unique, whole.experts, whole.top_k, popularity_cv, batch)
    missed = 1 - unique / whole.experts
    single = missed * (1 - missed)
    covariance = (deviation**2 - whole.experts * single) / (whole.experts * max(whole.experts - 1, 1))
    variance = max(0.0, local * single + local * (local - 1) * covariance)
    quantile = 1 - (1 - scenario.resident.quantile) / held.over.expert
    bound = needed + NormalDist().inv_cdf(quantile) * variance**0.5 - 0.5
    return min(max(_up(bound), 1), most)


def _up(number: float) -> int:
    return math.ceil(number - ROUNDING_GUARD)


def budget_of(filled: Filled, sequences: int) -> list[Line]:
    """Return the budget of a GPU of several in bytes: the device, what it holds, what is free for the KV cache."""
    held, metrics = filled.stage.held, filled.metrics
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
    return [
        Line("device memory that an engine may use", held.device_bytes, held.device_bytes),
        *(line for line in taken if line.baseline or line.prophet),
        Line("free for the KV cache", metrics["baseline_free_bytes"], metrics["prophet_free_bytes"]),
    ]


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


def weights_of(stage: Stage) -> tuple[Number, Number]:
    """Return the bytes of all weights on a GPU of a stage, and those of its routed experts among them."""
    memory = stage.memory
    experts = memory.moe_layers * memory.experts * memory.expert_bytes
    return memory.non_expert_bytes + experts, experts


def numbers(filled: Filled) -> dict[str, Number]:
    """Return the numbers of a GPU that a table of stages shows: bytes, and tokens per sequence."""
    memory, metrics = filled.stage.memory, filled.metrics
    weights, experts = weights_of(filled.stage)
    return {
        "weights_bytes": weights,
        "expert_bytes": experts,
        "prophet_expert_bytes": metrics["prophet_expert_bytes"],
        "kv_bytes_per_token": memory.kv_bytes_per_token_growing,
        "kv_bytes_bounded": memory.kv_bytes_bounded,
        "baseline_free_bytes": metrics["baseline_free_bytes"],
        "prophet_free_bytes": metrics["prophet_free_bytes"],
        "baseline_max_context": metrics["baseline_max_context"],
        "prophet_max_context": metrics["prophet_max_context"],
    }


def total_weights(held: Spread) -> int:
    """Return the bytes of weights on all GPUs together, copies counted as often as they are held."""
    return round(sum(weights_of(stage)[0] * len(stage.numbers) for stage in held.stages) * held.over.experts_over)


def whole_weights(spec: ModelSpec, scenario: Scenario) -> int:
    """Return the bytes of the model's weights once."""
    return sum(params.weight_bytes(spec.architecture, scenario.precision_of(spec.precision)).values())
