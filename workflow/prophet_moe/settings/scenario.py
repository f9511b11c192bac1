"""A scenario: the parameters under which every configuration is computed, and the two scenarios of the artifact."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from prophet_moe.precision import MlaCache, Precision
from prophet_moe.settings.fields import LARGEST_CONTEXT, LARGEST_LAYERS, LARGEST_MIB, LARGEST_RATIO, LARGEST_WIDTH
from prophet_moe.validation import StrictModel, inconsistent


class Routing(StrictModel):
    """How many distinct routed experts a batch of B tokens activates in one layer, u(B)."""

    law: Literal["dirichlet_occupancy", "uniform_occupancy", "power_law"] = "dirichlet_occupancy"
    """dirichlet_occupancy: experts differ in popularity by `variation`; uniform_occupancy: E (1 - (1 - k/E)^B);
    power_law: min(E, k B^exponent)."""
    variation: Literal["fitted", "counts"] | Annotated[float, Field(ge=0, le=LARGEST_RATIO)] = "fitted"
    """Of dirichlet_occupancy: standard deviation of the experts' popularity over its mean; fitted: to the model's own
    traces, else pooled from those of other models; counts: to the model's own folder of `counts`, else as fitted."""
    batching: Literal["staggered", "decode_step", "prefill"] = "staggered"
    """Which batches `variation` is fitted to: each sequence at a token of its own (continuous batching), all at the
    same step since their prompts, or consecutive tokens of one sequence."""
    exponent: float = Field(default=0.932, gt=0, le=1)
    """Exponent of the power law (report 000:73)."""


class Quantile(StrictModel):
    """As many experts as a given share of a layer's steps needs at most, by the routing law."""

    quantile: float = Field(gt=0, lt=1)
    """Share of the layer-steps whose distinct experts are all resident."""


class Activation(StrictModel):
    """How the peak memory of activations is computed."""

    rule: Literal["per_component", "per_total_parameters"] = "per_component"
    """per_component: the widest block times the tokens in flight; per_total_parameters: fitted to the report."""
    prefill_chunk_tokens: int = Field(default=2048, gt=0, le=LARGEST_CONTEXT)
    """Tokens of one prefill chunk; vLLM's documented minimum budget for chunked prefill."""
    gb_per_billion_parameters: float = Field(default=0.0107, ge=0, le=LARGEST_RATIO)
    """GB per 10^9 parameters and sequence; a fit to the report's results, not a law."""


class Scenario(StrictModel):
    """A named set of parameters; the same rules build every scenario."""

    title: str
    """Shown in captions, notebooks and the metadata of figures."""
    architecture: Literal["published", "reported"] = "published"
    """Count from the published architecture, or take the report's constants."""
    device_memory: Literal["visible", "nominal"] = "visible"
    """Memory that CUDA reports, or the number in the product's name."""
    usable_memory_share: float = Field(default=1.0, gt=0, le=1)
    """Of the device memory, what an engine may use; vLLM's gpu_memory_utilization is 0.9 by default."""
    weight_bits: int = Field(default=16, gt=0, le=32)
    """Bits per weight (published architectures)."""
    kv_bits: int = Field(default=16, gt=0, le=32)
    """Bits per KV-cache value (published architectures)."""
    ssm_state_bits: int = Field(default=32, gt=0, le=32)
    """Bits per value of a Mamba SSM state; Transformers keeps FP32."""
    mla_cache: MlaCache = "latent"
    """What multi-head latent attention caches."""
    routing: Routing = Routing()
    resident: Literal["mean", "fractional", "never_overflows"] | Quantile = Quantile(quantile=0.99)
    """Experts per layer that Prophet keeps. mean: u(B), rounded up; fractional: u(B) as it is, as the report does;
    never_overflows: min(E, k B); quantile: what that share of layer-steps needs at most, for laws other than the
    power law, which has no distribution."""
    activation: Activation = Activation()
    workspace_mib: float = Field(default=32, ge=0, le=LARGEST_MIB)
    """Library workspace, MiB; cuBLAS's default on Hopper."""
    runtime_reserve: Literal["measured", "assumed"] = "measured"
    """measured: the CUDA context of a GPU whose memory was measured (resources/memory/<gpu>/) replaces
    runtime_reserve_mib; assumed: that number on every GPU."""
    runtime_reserve_mib: float = Field(default=1024, ge=0, le=LARGEST_MIB)
    """CUDA context and allocator slack, MiB: an assumption, for GPUs that were not measured."""
    predictor_mb: Literal["own"] | Annotated[float, Field(ge=0, le=LARGEST_MIB)] = "own"
    """Prophet's predictor, MB; own: what the project's predictor takes for the model's experts and layers."""
    predictor_hidden: int = Field(default=96, gt=0, le=LARGEST_WIDTH)
    """Hidden units per layer of a predictor whose size is its own; config/predictor.yaml trains as many."""
    lookahead_layers: int = Field(default=0, ge=0, le=LARGEST_LAYERS)
    """Layers whose top-k experts have a staging buffer of their own (the report looks 3 ahead, 000:69). 0: what is
    prefetched goes into the slots of resident experts, as in the simulator."""
    undefined_extension: Literal["empty", "zero"] = "empty"
    """What kv_extension_factor holds where the baseline does not fit; with zero, means run over all rows."""

    @property
    def fits_routing(self) -> bool:
        """Whether the routing law rests on traces."""
        return self.routing.law == "dirichlet_occupancy" and isinstance(self.routing.variation, str)

    @property
    def fits_counts(self) -> bool:
        """Whether the routing law rests on counts where a model has some."""
        return self.fits_routing and self.routing.variation == "counts"

    @property
    def precision(self) -> Precision:
        """The precision that memory and time both count with."""
        return Precision(self.weight_bits, self.kv_bits, self.ssm_state_bits, self.mla_cache)

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
    def _counts_know_no_order(self) -> "Scenario":
        if self.fits_counts and self.routing.batching != "staggered":
            raise inconsistent(
                ("routing", "batching"),
                f"got {self.routing.batching}, expected staggered with variation counts: "
                "counts do not tell which tokens follow each other",
            )
        return self


CALIBRATED = Scenario(title="calibrated: published architectures, routing pooled from other models' traces")
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
