"""A model over several GPUs: what the fullest GPU holds of it, with every expert resident and with expert slots.

`params.sharding` cuts the architecture to the part of one GPU; `capacity` then counts that part as it counts a model.
A batch is that of the whole system: each copy of attention serves its share of the sequences, and the experts those of
all copies. Stages of a pipeline hold the cache of their own layers, of all sequences.

Prophet has slots on every GPU. Where experts are split, a slot holds the GPU's part of an expert, and every GPU needs
what the whole batch needs. Where experts are whole, a GPU needs those of its own experts that the batch chooses:
u(B) / n in the mean, if all experts are alike.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from statistics import NormalDist

from prophet_moe import params
from prophet_moe.capacity import reference
from prophet_moe.capacity.memory import ModelMemory, Number, model_memory
from prophet_moe.catalog import ModelSpec
from prophet_moe.catalog.architecture import Architecture, letters
from prophet_moe.errors import UserError
from prophet_moe.params.sharding import Parallelism, check_parallelism, shard, stage_weights
from prophet_moe.routing.urn import ROUNDING_GUARD
from prophet_moe.settings.scenario import Scenario
from prophet_moe.units import GIB

NODE = 8
"""GPUs of one machine, which share their fast links: tensor parallelism stays within it."""
TENSOR = (1, 2, 4, 8)
"""Numbers of GPUs that share the matrices of a layer."""


def layouts(arch: Architecture, gpus: int) -> list[Parallelism]:
    """Return every way to spread a model over `gpus` GPUs that engines accept: products of tp, dp and pp.

    Tensor-parallel GPUs lie in one machine. They split experts, or hold whole ones. Copies of attention always share
    whole experts: their GPUs are expert-parallel. Fewer experts than GPUs, heads that do not divide, and stages of an
    encoder-decoder are left out.
    """
    if gpus < 1:
        raise UserError("gpus", f"got {gpus}, expected at least 1", "Correct it.")
    return [over for over in _products(gpus, bool(arch.moe)) if _accepted(arch, over)]


def _products(gpus: int, has_experts: bool) -> Iterator[Parallelism]:
    for tensor in TENSOR:
        stages, left = divmod(gpus, tensor)
        if left or tensor > NODE:
            continue
        for data in range(1, stages + 1):
            if stages % data:
                continue
            over = tensor * data
            if data == 1:
                yield Parallelism(tensor, stages)
            if over > 1 and has_experts:
                yield Parallelism(tensor, stages // data, over, data)


def _accepted(arch: Architecture, over: Parallelism) -> bool:
    if over.pipeline > 1 and arch.encoder:
        return False
    if over.expert > 1 and over.expert > arch.moe.experts:
        return False
    try:
        check_parallelism(arch, over)
    except UserError:
        return False
    return True


def layout_name(over: Parallelism) -> str:
    """Return a layout in words, such as `tp 8`, `dp 8, ep 8` or `pp 2, tp 4`; `1 GPU` where there is one."""
    sizes = (("pp", over.pipeline), ("dp", over.data), ("tp", over.tensor), ("ep", over.expert))
    return ", ".join(f"{name} {size}" for name, size in sizes if size > 1) or "1 GPU"


@dataclass(frozen=True)
class Stage:
    """What a GPU of one pipeline stage holds of a model, but for its experts of which there are `memory.experts`."""

    memory: ModelMemory
    first: bool
    last: bool


@dataclass(frozen=True)
class Spread:
    """A model over GPUs in one layout, under a scenario whose popularity CV is in `whole`."""

    spec: ModelSpec
    scenario: Scenario
    whole: ModelMemory
    """The memory constants of the whole model."""
    over: Parallelism
    communication_gib: float = 0.0
    """Memory that libraries of communication take on each of several GPUs."""

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Return the stages that differ, in order."""
        return tuple(_stages(self))

    def sequences(self, batch: int) -> int:
        """Return the sequences of a batch that the fullest copy of attention serves."""
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

    def metrics(self, device_bytes: int, batch: int, resident: Number | None = None) -> Mapping[str, Number]:
        """Return what `capacity.reference.evaluate` does, of the GPU that holds the least context.

        Parameters
        ----------
        device_bytes : int
            Bytes of a GPU that an engine may use.
        batch : int
            Sequences of the whole system.
        resident : number, optional
            Slots per layer on a GPU, instead of those of the scenario's rule.

        Returns
        -------
        dict from str to number
            Bytes are those of a GPU, contexts those of a sequence. Of a pipeline, experts, activations and other bytes
            are those of the stage that leaves Prophet the shortest context, `baseline_max_context` that of the stage
            that leaves the baseline the shortest.
        """
        slots = self.resident_experts(batch) if resident is None else resident
        free = device_bytes - (round(self.communication_gib * GIB) if self.over.gpus > 1 else 0)
        found = [
            reference.evaluate(stage.memory, free, self.sequences(batch), self.scenario, resident=slots)
            | {"kv_bytes_per_token": stage.memory.kv_bytes_per_token_growing, "moe_layers": stage.memory.moe_layers}
            for stage in self.stages
        ]
        fullest = min(found, key=lambda each: (each["prophet_max_context"], -each["prophet_expert_bytes"]))
        baseline = min(each["baseline_max_context"] for each in found)
        return fullest | {
            "baseline_max_context": baseline,
            "baseline_fits": baseline >= 1,
            "unique_experts": self.unique_experts(batch),
            "local_experts": self.stages[0].memory.experts,
        }

    def most_slots(self, device_bytes: int, batch: int, context: int) -> int | None:
        """Return the most slots per layer on every GPU that leave room for `context`; None where one leaves none."""
        low, high = 0, int(self.stages[0].memory.experts)
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.metrics(device_bytes, batch, middle)["prophet_max_context"] >= context
            low, high = (middle, high) if fits else (low, middle - 1)
        return low or None


def spread(
    spec: ModelSpec, scenario: Scenario, over: Parallelism, popularity_cv: float = 0.0, communication_gib: float = 0.0
) -> Spread:
    """Return a model over GPUs; a way of spreading that engines refuse is a UserError.

    Parameters
    ----------
    spec : ModelSpec
        A model with a published architecture.
    scenario : Scenario
        Formats, routing, resident rule and reserves; its architectures are the published ones.
    over : Parallelism
        The layout.
    popularity_cv : float
        Spread of the popularity of experts.
    communication_gib : float
        GiB that libraries of communication take on each of several GPUs.
    """
    check_parallelism(spec.architecture, over)
    whole = replace(model_memory(spec, scenario), popularity_cv=popularity_cv)
    return Spread(spec, scenario, whole, over, communication_gib)


def _stages(held: Spread) -> Iterator[Stage]:
    """Yield the stages that hold different layers or embeddings."""
    arch, over = held.spec.architecture, held.over
    pattern = "".join(letters(arch.pattern))
    before = [0, *accumulate(over.stage_layers(len(arch.layers())))]
    seen = set()
    for stage in range(over.pipeline):
        first, last = stage == 0, stage == over.pipeline - 1
        key = pattern[before[stage] : before[stage + 1]], first, last
        if key not in seen:
            seen.add(key)
            yield Stage(_memory(held, stage, first, last), first, last)


def _memory(held: Spread, stage: int, first: bool, last: bool) -> ModelMemory:
    """Return the memory constants of a GPU of a stage: those of its shard, its embeddings, and the whole predictor."""
    here = shard(held.spec.architecture, held.over, stage)
    scenario, whole = held.scenario, held.whole
    memory = model_memory(held.spec.model_copy(update={"architecture": here}), scenario)
    changed: dict[str, Number] = {
        "predictor_bytes": whole.predictor_bytes,
        # The last stage gathers whole logits before it samples.
        "activation_bytes_per_sequence": whole.activation_bytes_per_sequence if last else 0,
        "native_context": whole.native_context,
    }
    if held.over.pipeline > 1:
        precision = scenario.precision_of(held.spec.precision)
        kept = [each for each in stage_weights(here, first, last) if each.component != "routed_experts"]
        changed["non_expert_bytes"] = params.stored_bytes(kept, precision)
    return replace(memory, **changed)


def _resident_of_whole_experts(held: Spread, batch: int, unique: float) -> Number:
    """Return the slots that a GPU with some of the experts needs.

    By the quantile, every one of n GPUs has enough in as many layer-steps as the rule says: each alone misses a share
    of (1 - quantile) / n (Bonferroni). The covariance of two experts is that of the whole layer.
    """
    whole, scenario = held.whole, held.scenario
    local = -(-whole.experts // held.over.expert)
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
    return -int(-(number - ROUNDING_GUARD) // 1)
