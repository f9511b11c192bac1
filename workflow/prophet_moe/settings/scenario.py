"""A scenario: the parameters under which every configuration is computed, and the two scenarios of the artifact."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from prophet_moe.precision import KvFormat, MlaCache, Precision, StateFormat, WeightFormat
from prophet_moe.settings.fields import (
    LARGEST_CONTEXT,
    LARGEST_LAYERS,
    LARGEST_MIB,
    LARGEST_RATIO,
    LARGEST_WIDTH,
    WeightFormats,
)
from prophet_moe.validation import StrictModel, inconsistent

IDEAL = "ideal"
"""Name of the engine that holds weights and caches as they are published, beside an assumed or measured reserve."""


class Routing(StrictModel):
    """How many distinct routed experts a batch of B tokens activates in one layer, u(B)."""

    law: Literal["dirichlet_occupancy", "uniform_occupancy", "power_law"] = "dirichlet_occupancy"
    """Law of u(B). `dirichlet_occupancy` lets experts differ in popularity, by `variation`. `uniform_occupancy` is
    E (1 - (1 - k/E)^B). `power_law` is min(E, k B^exponent)."""
    variation: Literal["fitted", "counts", "published"] | Annotated[float, Field(ge=0, le=LARGEST_RATIO)] = "published"
    """Coefficient of variation of expert popularity, used by `dirichlet_occupancy`. `fitted` uses the value fitted to
    this model's traces, or the value pooled over other models if it has none. `counts` uses the value fitted to this
    model's folder of `counts`, or that of `fitted` if it has none. `published` uses counts of published models
    (resources/observations/routing.csv): those of this model, or the value pooled over models whose training balanced
    the load alike."""
    text: Literal["any", "web", "prompts"] = "any"
    """Text of the counts that `variation: published` rests on. `web` is like the text of pre-training, `prompts` are
    instructions, questions and tasks. A model that has other counts only keeps them."""
    batching: Literal["staggered", "decode_step", "prefill"] = "staggered"
    """Batches that `variation` is fitted to. In `staggered`, each sequence is at a token of its own, as in continuous
    batching. In `decode_step`, all sequences are at the same step since their prompts. In `prefill`, a batch is
    consecutive tokens of one sequence."""
    exponent: float = Field(default=0.932, gt=0, le=1)
    """Exponent of `power_law` (report 000:73)."""


class Quantile(StrictModel):
    """A number of resident experts that is enough for a given share of layer-steps, by the routing law."""

    quantile: float = Field(gt=0, lt=1)
    """Share of layer-steps whose distinct experts are all resident."""


class Activation(StrictModel):
    """The rule for the peak memory of activations."""

    rule: Literal["per_component", "per_total_parameters"] = "per_component"
    """Rule for activation memory. `per_component` is the widest block times the tokens in flight.
    `per_total_parameters` is fitted to the report."""
    prefill_chunk_tokens: int = Field(default=2048, gt=0, le=LARGEST_CONTEXT)
    """Tokens of one prefill chunk. The default is vLLM's documented minimum budget for chunked prefill."""
    gb_per_billion_parameters: float = Field(default=0.0107, ge=0, le=LARGEST_RATIO)
    """Activation memory of `per_total_parameters`, GB per 10^9 parameters and sequence. It is fitted to the report's
    results and is no physical law."""


class Formats(StrictModel):
    """How weights, caches and states are stored: what memory, time and the simulator count with."""

    precision: Literal["shipped"] | WeightFormat | WeightFormats = "bf16"
    """Formats of weights, for published architectures: one for all matrices, one per component, or `shipped`, those
    of the model's file."""
    kv_format: KvFormat = "bf16"
    """Format of the KV cache, for published architectures."""
    state_format: StateFormat = "own"
    """Format of recurrent states. `own` is the one that the model's class keeps, which is fp32 for nearly all."""
    mla_cache: MlaCache = "latent"
    """Form in which multi-head latent attention keeps its KV cache."""

    def precision_of(self, shipped: WeightFormats) -> Precision:
        """Return the precision that memory and time both count with, of a model whose file ships `shipped` formats."""
        formats = shipped if self.precision == "shipped" else self.precision
        if isinstance(formats, str):
            formats = WeightFormats(default=formats)
        kept = self.kv_format, self.state_format, self.mla_cache
        return Precision(formats.default, formats.components(), *kept)


class Scenario(Formats):
    """A named set of parameters; the same rules build every scenario."""

    title: str
    """Title of the scenario in captions, notebooks and the metadata of figures."""
    engine: str = IDEAL
    """Serving engine, a profile of config/engines/ (docs/engines.md). `ideal` holds weights and caches as published;
    any other one adds its tables and padding, its cache layout, and its reserves in place of `workspace_mib`,
    `runtime_reserve` and `activation`. Its own share of memory holds where `usable_memory_share` is 1."""
    architecture: Literal["published", "reported"] = "published"
    """Source of sizes. `published` counts them from the published architecture. `reported` uses the report's
    constants."""
    device_memory: Literal["visible", "nominal"] = "visible"
    """Memory of a GPU. `visible` is what CUDA reports. `nominal` is the number in the product's name."""
    usable_memory_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the device memory that an engine may use. The default of vLLM's gpu_memory_utilization is 0.9."""
    draft_layers: bool = False
    """Whether the draft layers of a model (multi-token prediction) are resident, where its file has them."""
    routing: Routing = Routing()
    resident: Literal["mean", "fractional", "never_overflows"] | Quantile = Quantile(quantile=0.99)
    """Experts per layer that Prophet keeps resident. `mean` is u(B), rounded up. `fractional` is u(B) without rounding,
    as in the report. `never_overflows` is min(E, k B). `quantile` is the number that is enough for that share of
    layer-steps. `power_law` has no distribution, so it cannot be combined with a quantile."""
    activation: Activation = Activation()
    workspace_mib: float = Field(default=32, ge=0, le=LARGEST_MIB)
    """Workspace of the GPU's libraries, MiB. The default is that of cuBLAS on Hopper."""
    runtime_reserve: Literal["measured", "assumed"] = "measured"
    """Source of the runtime reserve. With `measured`, a GPU whose memory was measured (resources/memory/<gpu>/) has the
    measured CUDA context, and other GPUs have `runtime_reserve_mib`. With `assumed`, all GPUs have
    `runtime_reserve_mib`."""
    runtime_reserve_mib: float = Field(default=1024, ge=0, le=LARGEST_MIB)
    """Memory for the CUDA context and allocator slack, MiB. It is an assumption for GPUs that were not measured."""
    predictor_mb: Literal["own"] | Annotated[float, Field(ge=0, le=LARGEST_MIB)] = "own"
    """Size of Prophet's predictor, MB. `own` computes the size of this project's predictor for the model's experts and
    layers."""
    predictor_hidden: int = Field(default=96, gt=0, le=LARGEST_WIDTH)
    """Hidden units per layer of the predictor, used with `predictor_mb: own`. config/predictor.yaml trains as many."""
    lookahead_layers: int = Field(default=0, ge=0, le=LARGEST_LAYERS)
    """Number of layers whose top-k experts have a staging buffer. The report looks 3 layers ahead (000:69). With 0,
    prefetched experts use the slots of resident experts, as in the simulator."""
    undefined_extension: Literal["empty", "zero"] = "empty"
    """Value of kv_extension_factor where the baseline does not fit. With `zero`, means are over all rows."""

    @property
    def fits_routing(self) -> bool:
        """Whether the routing law rests on traces or counts."""
        return self.routing.law == "dirichlet_occupancy" and isinstance(self.routing.variation, str)

    @property
    def given_popularity_cv(self) -> float:
        """Popularity CV that the scenario itself gives: 0 where its routing is fitted, or no law takes one."""
        return 0.0 if isinstance(self.routing.variation, str) else self.routing.variation

    @property
    def fits_counts(self) -> bool:
        """Whether the routing law rests on counts where a model has some."""
        return self.fits_routing and self.routing.variation == "counts"

    @property
    def fits_published(self) -> bool:
        """Whether the routing law rests on counts of published models."""
        return self.fits_routing and self.routing.variation == "published"

    @property
    def basis(self) -> str:
        """What sizes and distinct experts rest on, a sentence for captions."""
        if self.architecture == "reported":
            return "Sizes and distinct experts are reported, or fitted to what is reported."
        return "Sizes are counted, and distinct experts are estimated by the law for u(B)."

    @property
    def zero_fill(self) -> bool:
        """Whether a missing extension counts as 0 in means."""
        return self.undefined_extension == "zero"

    @model_validator(mode="after")
    def _law_has_a_distribution(self) -> "Scenario":
        if self.routing.law == "power_law" and isinstance(self.resident, Quantile):
            raise inconsistent(
                ("routing", "law"),
                f"got power_law, which gives no quantile ({self.resident.quantile:g}) of distinct experts; "
                "expected another law, or resident mean, fractional or never_overflows",
                [("resident",)],
            )
        return self

    @model_validator(mode="after")
    def _engine_has_an_architecture(self) -> "Scenario":
        if self.engine != IDEAL and self.architecture == "reported":
            problem = f"got {self.engine}, expected {IDEAL} with the architectures of the report, which name no layers"
            raise inconsistent(("engine",), problem, [("architecture",)])
        return self

    @model_validator(mode="after")
    def _counts_know_no_order(self) -> "Scenario":
        if (self.fits_counts or self.fits_published) and self.routing.batching != "staggered":
            raise inconsistent(
                ("routing", "batching"),
                f"got {self.routing.batching}, expected staggered with variation {self.routing.variation}: "
                "counts do not say which tokens follow each other, as traces do (variation fitted)",
            )
        return self


CALIBRATED = Scenario(title="calibrated: published architectures, routing as counted in published models")
REPORTED = Scenario(
    title="reported: the report's constants and formulas",
    architecture="reported",
    device_memory="nominal",
    routing=Routing(law="power_law"),
    resident="fractional",
    activation=Activation(rule="per_total_parameters"),
    workspace_mib=0,
    runtime_reserve="assumed",
    runtime_reserve_mib=0,
    predictor_mb=7.2,
    undefined_extension="zero",
)
