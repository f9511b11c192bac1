"""Exact numbers of parameters and bytes of weights: sums of the matrices of `params.weights` over the pattern."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from decimal import Decimal

from prophet_moe.catalog import ModelSpec
from prophet_moe.catalog.architecture import Architecture, letters
from prophet_moe.params.weights import Weights, draft_weights, expert_weights, key_value_weights, weights
from prophet_moe.precision import BF16, FORMATS, Precision

NOTED_DEVIATION = 0.01
"""Share by which a count may differ from the published total before it is noted: authors round, and count heads."""
PLAIN = FORMATS["bf16"]
"""Format of what is never quantised."""


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters by component. All but `routed_experts` are always resident, shared experts and gates included."""

    routed_experts: int = 0
    shared_experts: int = 0
    router: int = 0
    latent_projections: int = 0
    dense_ffn: int = 0
    attention: int = 0
    indexer: int = 0
    state_mixer: int = 0
    embeddings: int = 0
    norms: int = 0
    hyper_connections: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """Return the number of all parameters of the model."""
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def non_expert(self) -> int:
        """Return the number of parameters that are not in a routed expert."""
        return self.total - self.routed_experts


def parameter_counts(arch: Architecture) -> ParameterCounts:
    """Count every parameter of `arch` by component, from its published shapes.

    Parameters
    ----------
    arch : Architecture
        The published architecture of a model.

    Returns
    -------
    ParameterCounts
        Exact whole numbers; shared experts and gates are counted apart from routed experts. Draft layers are not in
        them (`draft_parameters`).

    References
    ----------
    The class of each family in Hugging Face Transformers, and the papers at the head of `params.weights`.
    """
    counts: Counter[str] = Counter()
    for each in weights(arch):
        counts[each.component] += each.parameters
    return ParameterCounts(**counts)


def draft_parameters(arch: Architecture) -> int:
    """Return the number of parameters of the draft layers, 0 without any."""
    return sum(each.parameters for each in draft_weights(arch))


def expert_parameters(arch: Architecture) -> int:
    """Return the number of parameters of one routed expert, 0 for a dense model."""
    return sum(each.parameters for each in expert_weights(arch.moe, arch.hidden)) if arch.moe else 0


def expert_bytes(arch: Architecture, precision: Precision = BF16) -> int:
    """Return the bytes of one routed expert, scales included; 0 for a dense model."""
    return stored_bytes(expert_weights(arch.moe, arch.hidden), precision) if arch.moe else 0


def stored_bytes(parts: Iterable[Weights], precision: Precision = BF16) -> int:
    """Return the bytes of weights in the formats of their components, scales and padding included."""
    return sum(each.count * _format(each, precision).bytes(each.rows, each.columns) for each in parts)


def weight_bytes(arch: Architecture, precision: Precision = BF16) -> dict[str, int]:
    """Return the bytes of weights by component, scales and padding included; draft layers are left out."""
    found: Counter[str] = Counter()
    for each in weights(arch):
        found[each.component] += stored_bytes([each], precision)
    return dict(found)


def draft_bytes(arch: Architecture, precision: Precision = BF16) -> int:
    """Return the bytes of the weights of the draft layers, 0 without any."""
    return stored_bytes(draft_weights(arch), precision)


def active_parameters(arch: Architecture) -> int:
    """Return the parameters that one token uses: everything but the routed experts it does not choose.

    With zero experts it is the most that a token can use: it chooses none of them.
    """
    used = min(arch.moe.top_k, arch.moe.experts) if arch.moe else 0
    return parameter_counts(arch).non_expert + moe_layers(arch) * used * expert_parameters(arch)


def moe_layers(arch: Architecture) -> int:
    """Return the layers that hold experts, over encoder and decoder."""
    return len(arch.moe_layers) + encoder_moe_layers(arch)


def encoder_moe_layers(arch: Architecture) -> int:
    """Return the layers of the encoder that hold experts; 0 without an encoder."""
    if arch.encoder is None:
        return 0
    ffns = (arch.blocks[letter].ffn for letter in letters(arch.encoder.pattern))
    return sum(1 for name in ffns if name and arch.ffns[name].kind == "moe")


def attention_layers(arch: Architecture) -> int:
    """Return the layers of the decoder that keep a KV cache."""
    return sum(1 for block in arch.layers() if block.mixer and arch.keeps_cache(block.mixer))


def source_projections(arch: Architecture, mixer: str) -> int:
    """Weights of the key and value projections of a decoder layer's cross-attention, 0 without an encoder.

    They are used once per source, when it has been encoded: a decode step reads the cached keys and values instead.
    """
    if arch.encoder is None:
        return 0
    return sum(each.parameters for each in key_value_weights(arch.mixers[mixer], arch.hidden))


def deviation_from_published(spec: ModelSpec) -> float:
    """Return by what share counted parameters differ from the stated total, beyond the rounding of its digits.

    Negative where fewer are counted; 0 where the two agree within half a unit of the last digit that is stated, and
    where no total is stated.
    """
    if spec.published_total_b is None:
        return 0.0
    stated = Decimal(str(spec.published_total_b))
    digits = max(0, -stated.normalize().as_tuple().exponent)
    apart = parameter_counts(spec.architecture).total / 1e9 - spec.published_total_b
    beyond = max(0.0, abs(apart) - 0.5 * 10.0**-digits)
    return math.copysign(beyond, apart) / spec.published_total_b


def _format(part: Weights, precision: Precision):
    return PLAIN if part.plain or part.component in UNQUANTISED else precision.format_of(part.component, part.part)


UNQUANTISED = ("router", "norms", "hyper_connections", "other")
"""Components that are never quantised."""
