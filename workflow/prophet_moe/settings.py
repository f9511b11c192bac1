"""Typed settings: config/experiment.yaml (science) and config/style.yaml (looks).

These classes are the one source of the defaults, of the JSON schemas under workflow/schemas/ and of the key table in
docs/configuration.md; `prophet-moe config write` makes the latter two and a test fails when any of them drifts.
"""

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from prophet_moe.errors import UserError
from prophet_moe.precision import MlaCache, Precision
from prophet_moe.sources import Sources
from prophet_moe.validation import StrictModel, inconsistent, validate

LARGEST_BATCH = 10**6
"""Sequences decoded together; more are a slip. The largest batches reported for one GPU are a few thousand."""


class Routing(StrictModel):
    """How many distinct routed experts a batch of B tokens activates in one layer, u(B)."""

    law: Literal["dirichlet_occupancy", "uniform_occupancy", "power_law"] = "dirichlet_occupancy"
    """dirichlet_occupancy: experts differ in popularity by `variation`; uniform_occupancy: E (1 - (1 - k/E)^B);
    power_law: min(E, k B^exponent)."""
    variation: Literal["fitted", "counts"] | Annotated[float, Field(ge=0)] = "fitted"
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
    """Peak activation memory, by a rule and its numbers."""

    rule: Literal["per_component", "per_total_parameters"] = "per_component"
    """per_component: the widest block times the tokens in flight; per_total_parameters: fitted to the report."""
    prefill_chunk_tokens: int = Field(default=2048, gt=0)
    """Tokens of one prefill chunk; vLLM's documented minimum budget for chunked prefill."""
    gb_per_billion_parameters: float = Field(default=0.0107, ge=0)
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
    workspace_mib: float = Field(default=32, ge=0)
    """Library workspace, MiB; cuBLAS's default on Hopper."""
    runtime_reserve: Literal["measured", "assumed"] = "measured"
    """measured: the CUDA context of a GPU whose memory was measured (resources/memory/<gpu>/) replaces
    runtime_reserve_mib; assumed: that number on every GPU."""
    runtime_reserve_mib: float = Field(default=1024, ge=0)
    """CUDA context and allocator slack, MiB: an assumption, for GPUs that were not measured."""
    predictor_mb: Literal["own"] | Annotated[float, Field(ge=0)] = "own"
    """Prophet's predictor, MB; own: what the project's predictor takes for the model's experts and layers."""
    predictor_hidden: int = Field(default=96, gt=0)
    """Hidden units per layer of a predictor whose size is its own; config/predictor.yaml trains as many."""
    lookahead_layers: int = Field(default=0, ge=0)
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


class Reference(StrictModel):
    """The configuration that tables 1 and 4 and figures 1, 3 and 4 show."""

    gpu: str = "A100-80GB"
    """One of `gpus`."""
    batch_size: int = Field(default=16, gt=0, le=LARGEST_BATCH)
    """One of `batch_sizes`."""


class Sensitivity(StrictModel):
    """Assumptions of the default scenario under which the headline is told again, one changed at a time."""

    runtime_reserve_mib: list[Annotated[float, Field(ge=0)]] = [0, 1024, 2048, 3072]
    """MiB of CUDA context and allocator slack."""
    usable_memory_share: list[Annotated[float, Field(gt=0, le=1)]] = [0.9, 1.0]
    """Of the device memory."""
    prefill_chunk_tokens: list[Annotated[int, Field(gt=0)]] = [512, 2048, 8192]
    """Tokens of one prefill chunk."""


class DecodeStep(StrictModel):
    """The decode steps of table 7."""

    context_tokens: int = Field(default=4096, gt=0)
    """Tokens in the KV cache of each sequence, at most the model's native context."""
    claimed_slowdown: float = Field(default=1.2, gt=1)
    """What the report says that Prophet costs (000:778)."""


class Prefill(StrictModel):
    """The prefill of the contexts that the memory allows."""

    compute_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the GPU's peak that matrix products of a prompt reach. A choice of this project, no prefill was
    measured: PaLM 540B reached 76 % at best (arXiv 2211.05102, table 2)."""


Names = Annotated[list[str], Field(min_length=1)]
Batch = Annotated[int, Field(gt=0, le=LARGEST_BATCH)]
Batches = Annotated[list[Batch], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, le=1)]


SequenceOrder = Literal["mixed", "one_tenant_at_a_time"]


class Simulation(StrictModel):
    """The comparison of strategies on routing traces."""

    timed_as: dict[str, str] = {
        "small-12x128-top1": "Switch-Base-128",
        "small-6x64-top8": "OLMoE-1B-7B",
        "small-6x8-top2": "Mixtral-8x7B",
    }
    """Model of config/models/ whose layers a trace's tokens are timed with; other traces: the model of the trace."""
    batch_sizes: Batches = [1, 2, 4, 8, 16, 32, 64]
    """Sequences that decode together (004:70)."""
    seeds: int = Field(default=5, gt=0)
    """Samples of sequences: with the report's six strategies and seven batch sizes, its 210 runs (004:8)."""
    sequences: int = Field(default=64, gt=0)
    """Sequences of a sample, at least the largest batch."""
    tokens: int = Field(default=32, gt=0)
    """Decoded tokens of each."""
    sequence_order: SequenceOrder = "mixed"
    """Order in which sequences are batched. mixed: permuted by the sample's seed, so that a batch has several tenants,
    as the capacity model assumes; one_tenant_at_a_time: as recorded, domain by domain."""
    dedup_samples: int = Field(default=80, gt=0)
    """Batches of each size whose deduplication is counted: with seven sizes, the report's 560 runs (004:8)."""
    capacity_share: Share = 0.5
    """Of each layer's experts, those that the GPU holds."""
    capacity_shares: list[Share] = Field(default=[0.125, 0.25, 0.5, 0.75, 0.875, 1.0], min_length=1)
    """Of the capacity sweep."""
    link_speedups: list[Annotated[float, Field(gt=0)]] = Field(default=[1, 4, 16, 64], min_length=1)
    """How much faster than the GPU's link experts are copied, at `capacity_share`: where prefetching begins to pay."""
    sweep_batch_sizes: Batches = [1, 8, 32]
    """Of both sweeps and of the detail by layer."""
    sweep_seeds: int = Field(default=5, gt=1)
    """Samples of sequences of both sweeps."""
    frontier_traces: list[str] = ["small-12x128-top1", "small-6x8-top2"]
    """Recorded traces that the frontier replays for models of their own E and k; all other models are replayed on
    calibrated routing (resources/routing/). small-6x64-top8 lacks the locality of the models that it could stand
    for."""
    frontier_predictor: str = "gpt-oss-20b-decode"
    """Trace whose predictor's power to tell chosen experts from others is carried over to calibrated routing."""
    frontier_shares: list[Share] = Field(
        default=[0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.9375, 0.96875], min_length=1
    )
    """Shares of each layer's experts at which the frontier is simulated, besides all of them; limits of slowdown are
    interpolated between them. A share of fewer than k experts or of all of them is left out."""
    frontier_samples: int = Field(default=4, gt=1)
    """Samples of sequences that the frontier replays: its intervals come from their spread."""
    frontier_sequences: int = Field(default=32, gt=0)
    """Sequences of each; larger batches take as many as they are."""
    frontier_largest_batch: int = Field(default=64, gt=0, le=1024)
    """The largest of `batch_sizes` that the frontier replays: time and memory of a replay grow with the batch."""
    frontier_tokens: int = Field(default=128, gt=0)
    """Decoded tokens of each sequence that the frontier replays."""
    frontier_layers: int = Field(default=6, gt=0)
    """MoE layers of calibrated routing; a layer takes as long whatever their number."""
    slowdown_limits: list[Annotated[float, Field(ge=1)]] = Field(default=[1.05, 1.2, 2.0], min_length=1)
    """For which the context gained is told."""
    storage_gb_per_s: float = Field(default=7.0, gt=0)
    """GB/s from storage, behind host memory in `prophet-moe sim run`: sequential reads of a PCIe 4.0 NVMe drive by its
    datasheet (Samsung 980 PRO)."""
    copy_chunk_mb: float = Field(default=4.0, gt=0)
    """MB of a copy that a more urgent one waits for."""

    @model_validator(mode="after")
    def _batches_fit(self) -> "Simulation":
        largest = max(self.batch_sizes + self.sweep_batch_sizes)
        if largest > self.sequences:
            raise inconsistent(
                ("sequences",),
                f"got {self.sequences}, expected at least the largest batch, {largest}",
                [("batch_sizes",), ("sweep_batch_sizes",)],
            )
        return self


class ReportedComparison(StrictModel):
    """What report 004 prints of its comparison, to stand beside what is measured."""

    step_ms: dict[str, float] = {
        "on_demand": 77882,
        "pre_gated": 77833,
        "expertflow": 81483,
        "top_k": 78889,
        "multi_look_ahead": 80454,
        "intelligent": 61542,
    }
    """Mean latency by strategy, ms (004:36-41)."""
    speedups: dict[str, float] = {
        "on_demand": 1.00,
        "pre_gated": 1.00,
        "expertflow": 0.96,
        "top_k": 0.99,
        "multi_look_ahead": 0.97,
        "intelligent": 1.29,
    }
    """Performance against the baseline by strategy (004:36-41)."""
    improvements: dict[int, float] = {1: 1.08, 2: 1.11, 4: 1.07, 8: 1.05, 16: 1.09, 32: 1.21, 64: 1.50}
    """Best of the report's own strategies against the mean of the papers', by batch size (004:72-78)."""
    papers_ms: dict[int, float] = {1: 5213, 2: 9681, 4: 18341, 8: 35791, 16: 70312, 32: 139699, 64: 278568}
    """Mean latency of the papers' strategies, ms, by batch size (004:72-78)."""
    best_ms: dict[int, float] = {1: 4840, 2: 8715, 4: 17139, 8: 33971, 16: 64663, 32: 115460, 64: 186006}
    """That of the best of the report's own, ms, by batch size (004:72-78)."""
    savings: dict[int, float] = {1: 0.0, 2: 0.057, 4: 0.171, 8: 0.244, 16: 0.348, 32: 0.491, 64: 0.649}
    """Share of memory and bandwidth saved by deduplication, by batch size (004:56-62)."""
    scaling_savings: dict[int, float] = {1: 0.0, 2: 0.009, 4: 0.023, 8: 0.052, 16: 0.11, 32: 0.208, 64: 0.365}
    """What another table of the report has for the same (004:72-78)."""
    reuse: dict[int, float] = {1: 0.0, 2: 0.281, 4: 0.438, 8: 0.508, 16: 0.637, 32: 0.768, 64: 0.876}
    """Expert reuse factor by batch size (004:56-62)."""


class FigureModels(StrictModel):
    """Which models a figure shows, in order (report 000:490-582), of those that `models` selects and a scenario has."""

    figure1_memory_breakdown: Names = [
        "Mixtral-8x7B",
        "DeepSeek-MoE-16B",
        "Qwen1.5-MoE-A2.7B",
        "Switch-Base-128",
        "Snowflake-Arctic-480B",
    ]
    """Models of figure 1."""
    figure3_context_scaling: Names = ["Switch-Base-128", "Qwen1.5-MoE-A2.7B", "DeepSeek-MoE-16B", "OLMoE-1B-7B"]
    """Models of figure 3."""
    figure4_batch_context_tradeoff: Names = [
        "Mixtral-8x7B",
        "DeepSeek-MoE-16B",
        "DeepSeek-V2-236B",
        "DeepSeek-V3-671B",
        "Switch-Base-128",
        "Switch-XXL-128",
        "Qwen1.5-MoE-A2.7B",
        "Snowflake-Arctic-480B",
    ]
    """Models of figure 4."""
    frontier: Names = ["Switch-Large-128", "DeepSeek-MoE-16B", "Qwen1.5-MoE-A2.7B", "Switch-Base-128"]
    """Models of the frontier between KV extension and slowdown."""

    def drawn(self, figure: str, available: Sequence[str]) -> list[str]:
        """The models that a figure draws where only those `available` are there, in order.

        Those of its own list; where none of these is there, those of its default list; else the first ones available.
        """
        default = type(self).model_fields[figure].default
        for wanted in (getattr(self, figure), default):
            if found := [name for name in wanted if name in available]:
                return found
        return list(available[: len(default)])


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


RESERVED = ("data", "generated")
"""Folders beside the scenarios' own."""


class Collect(StrictModel):
    """Routing traces: recorded ones, or collected afresh."""

    afresh: bool = False
    """Train the models of the plan and record their traces now, instead of reading resources/traces/."""
    plan: str = "config/collect.yaml"
    """The corpus, the models, and how they are trained and traced."""
    python: str = ".venv-gpu/bin/python"
    """A Python with PyTorch and Transformers (`make gpu`)."""


class Experiment(StrictModel):
    """The science of the artifact: what is computed, for which models, GPUs and batches, under which scenarios."""

    name: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,62})?$")
    """Of this run, for overlays: its outputs lie in results/runs/<name>/, beside nobody else's; empty: in place."""
    scenario: str = "calibrated"
    """The default scenario: its outputs lie at the top of figures/, tables/ and paper/generated/."""
    models: Literal["all"] | list[str] = "all"
    """All of config/models/, or a list of names."""
    gpus: list[str] = Field(default=["V100-32GB", "A100-40GB", "A100-80GB", "H100-80GB"], min_length=1)
    """GPUs of the grid, keys of config/gpus.yaml."""
    too_large: list[str] = ["Jamba-1.5-Large"]
    """Models shown although no GPU of the grid holds their non-expert weights; any other such model is an error."""
    batch_sizes: Batches = [1, 4, 8, 16, 32, 64]
    """Sequences decoded together."""
    traces: Names = ["small-12x128-top1", "small-6x64-top8", "small-6x8-top2"]
    """Folders of resources/traces/; where traces are collected afresh, models of the plan."""
    counts: list[str] = []
    """Folders of resources/traces/ that hold counts instead of a trace (`prophet-moe trace import counts`), one of each
    model, for scenarios with `routing.variation: counts`."""
    collect: Collect = Collect()
    reported_exponents: dict[str, float] = {
        "Switch-Base-128": 0.934,
        "Qwen1.5-MoE-A2.7B": 0.928,
        "DeepSeek-V3-671B": 0.935,
        "Mixtral-8x7B": 0.931,
    }
    """Exponents of u(B) = k B^a that the report says it fitted, by model (000:871-874)."""
    decode_step: DecodeStep = DecodeStep()
    prefill: Prefill = Prefill()
    simulation: Simulation = Simulation()
    reported_comparison: ReportedComparison = ReportedComparison()
    reference: Reference = Reference()
    sensitivity: Sensitivity = Sensitivity()
    figure_models: FigureModels = FigureModels()
    scenarios: dict[str, Scenario] = {"calibrated": CALIBRATED, "reported": REPORTED}
    """Scenarios by name."""
    build_scenarios: Literal["all"] | Names = "all"
    """All of `scenarios`, or a list of names, the default scenario among them: only their outputs are built."""

    def built_scenarios(self) -> dict[str, Scenario]:
        """The scenarios to build, by name, in the order of their definition."""
        chosen = self.scenarios if self.build_scenarios == "all" else self.build_scenarios
        return {name: scenario for name, scenario in self.scenarios.items() if name in chosen}

    def selected_models(self) -> list[str] | None:
        """Names of the models to read, None for all."""
        return None if self.models == "all" else self.models

    @model_validator(mode="after")
    def _names_agree(self) -> "Experiment":
        for name in self.scenarios:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in RESERVED:
                raise inconsistent(
                    ("scenarios", name), "this name cannot be a folder beside data/; expected letters, digits and _"
                )
        if self.scenario not in self.scenarios:
            known = ", ".join(self.scenarios)
            raise inconsistent(("scenario",), f"got {self.scenario!r}, expected one of {known}", [("scenarios",)])
        chosen = [] if self.build_scenarios == "all" else self.build_scenarios
        for number, name in enumerate(chosen):
            if name not in self.scenarios:
                at = ("build_scenarios", number)
                raise inconsistent(at, unknown_name(name, self.scenarios), [("scenarios",)])
        if chosen and self.scenario not in chosen:
            problem = f"got {', '.join(chosen)}, expected the default scenario, {self.scenario}, among them"
            raise inconsistent(("build_scenarios",), problem, [("scenario",)])
        resting = [name for name, scenario in self.scenarios.items() if scenario.fits_counts]
        if resting and not self.counts:
            problem = f"got [], expected folders: variation of scenario {resting[0]} is counts"
            raise inconsistent(("counts",), problem, [("scenarios", resting[0])])
        for key in ("gpus", "batch_sizes", "counts"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise inconsistent((key,), f"got {values}, expected every value once")
        return self


def _colour(given: str) -> str:
    """The colour as Matplotlib understands it, as #rrggbb, or #rrggbbaa where it is not opaque."""
    if re.fullmatch(r"#[0-9a-f]{6}", given):
        return given
    from matplotlib import colors  # slow to import, and only needed for what is no plain value

    if not colors.is_color_like(given):
        expected = "expected a colour that Matplotlib knows, such as '#0072b2', 'tab:blue' or 'navy'"
        raise inconsistent((), f"got {given!r}, {expected}")
    return colors.to_hex(given, keep_alpha=colors.to_rgba(given)[3] < 1)


def _colour_map(given: str) -> str:
    """The name of a colour map that Matplotlib has."""
    if given == "RdYlGn":
        return given
    from matplotlib import colormaps  # slow to import

    if given not in colormaps:
        near = difflib.get_close_matches(given, colormaps, n=1)
        expected = f"did you mean {near[0]!r}" if near else "expected a colour map of Matplotlib, such as 'viridis'"
        raise inconsistent((), f"got {given!r}; {expected}")
    return given


Colour = Annotated[str, AfterValidator(_colour)]


class Colours(StrictModel):
    """Colours as Matplotlib takes them; the defaults are safe for the colour-blind (Okabe and Ito 2008, and greys)."""

    baseline: Colour
    """Bars of the baseline."""
    prophet: Colour
    """Bars of Prophet."""
    does_not_fit: Colour
    """Marks of what does not fit."""
    text: Colour
    """Text and axes."""
    grid: Colour
    """Grid lines."""
    series: Annotated[list[Colour], Field(min_length=1)]
    """Series in figures with several models; more series than colours take them in turn, told apart by markers."""


OKABE_ITO = Colours(
    baseline="#999999",
    prophet="#0072b2",
    does_not_fit="#d55e00",
    text="#222222",
    grid="#dddddd",
    series=["#0072b2", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#666666"],
)


KNOWN_TRACES = ["small-12x128-top1", "small-6x64-top8", "small-6x8-top2", "gpt-oss-20b-decode"]


class FigureStyle(StrictModel):
    """Looks of one figure: its size as printed."""

    width_in: float = Field(gt=0)
    """Width as printed, inches: 3.33 is one column, 7 is two."""
    height_in: float = Field(gt=0)
    """Height as printed, inches; a figure grows when its rows need more."""


class FigureStyles(StrictModel):
    """Looks of each figure, by its name."""

    figure1_memory_breakdown: FigureStyle = FigureStyle(width_in=7.0, height_in=3.2)
    figure2_kv_extension_by_model: FigureStyle = FigureStyle(width_in=3.33, height_in=3.4)
    figure3_context_scaling: FigureStyle = FigureStyle(width_in=3.33, height_in=2.5)
    figure4_batch_context_tradeoff: FigureStyle = FigureStyle(width_in=3.33, height_in=2.6)
    figure5_expert_count_analysis: FigureStyle = FigureStyle(width_in=7.0, height_in=3.2)
    routing_statistics: FigureStyle = FigureStyle(width_in=7.0, height_in=2.6)
    routing_law: FigureStyle = FigureStyle(width_in=7.0, height_in=2.6)
    prediction: FigureStyle = FigureStyle(width_in=7.0, height_in=2.6)
    comparative_evaluation: FigureStyle = FigureStyle(width_in=7.0, height_in=4.0)
    expert_deduplication: FigureStyle = FigureStyle(width_in=7.0, height_in=2.6)
    layer_detail: FigureStyle = FigureStyle(width_in=7.0, height_in=2.8)
    strategy_sweeps: FigureStyle = FigureStyle(width_in=7.0, height_in=4.2)
    frontier: FigureStyle = FigureStyle(width_in=7.0, height_in=3.0)


class Style(StrictModel):
    """Looks, apart from science: a change here redraws figures and recomputes nothing."""

    font: Literal["DejaVu Sans", "DejaVu Sans Mono", "DejaVu Serif", "STIXGeneral"] = "DejaVu Sans"
    """A font that Matplotlib ships, so that every machine draws the same."""
    font_size_pt: float = Field(default=8, gt=0)
    """Size of text in a printed figure, points."""
    line_width_pt: float = Field(default=1.2, gt=0)
    """Width of data lines, points."""
    png_dpi: int = Field(default=200, gt=0)
    """Resolution of the PNG copies, dots per inch."""
    colours: Colours = OKABE_ITO
    heatmap: Annotated[str, AfterValidator(_colour_map)] = "YlGnBu"
    """Colour map of figure 4, from low savings to high. Choose a sequential one: its greys tell the ends apart."""
    traces: list[str] = KNOWN_TRACES
    """Routing traces in the order of their colours and markers, which a trace keeps in every figure. Append others."""
    figures: FigureStyles = FigureStyles()

    def for_figure(self, name: str) -> dict[str, Any]:
        """The looks that concern one figure, as JSON-like values: the others are left at their defaults."""
        own = {"figures": {name: getattr(self.figures, name).model_dump()}}
        return self.model_dump(mode="json", exclude={"figures"}) | own


class StyleFile(StrictModel):
    """The whole of config/style.yaml: one key, `style`."""

    style: Style = Style()


class Settings(StrictModel):
    """All that `snakemake --configfile` may change: the keys of the experiment, and `style`."""

    experiment: Experiment = Experiment()
    style: Style = Style()


def resolve(
    config: Mapping[str, Any],
    files: Sequence[Path],
    models: Collection[str],
    gpus: Collection[str],
    traces: Callable[[Collect], Collection[str]] | None = None,
    counts: Collection[str] | None = None,
) -> Settings:
    """Validate a merged configuration against the names of the catalogue's `models` and `gpus`, `traces` and `counts`.

    `files` are the files it was merged from, in that order; an error names the last one that holds the key.
    """
    sources = Sources(config, files)

    science = {key: value for key, value in config.items() if key != "style"}
    experiment = validate(Experiment, science, sources.of, SEE_KEYS)
    style = validate(StyleFile, {"style": config.get("style", {})}, sources.of, SEE_KEYS).style

    check_names("models", experiment.selected_models() or (), models, sources.of)
    check_names("gpus", experiment.gpus, gpus, sources.of)
    if counts is not None:
        for number, name in enumerate(experiment.traces):
            if name in counts:
                problem = f"traces[{number}]: {name!r} holds counts, expected a trace"
                raise UserError(sources.of(("traces", number)), problem, "List it under counts instead.")
        check_names("counts", experiment.counts, counts, sources.of)
    if traces is not None:
        check_names("traces", experiment.traces, traces(experiment.collect), sources.of)
    for key, allowed in (("gpu", experiment.gpus), ("batch_size", experiment.batch_sizes)):
        value = getattr(experiment.reference, key)
        if value not in allowed:
            where = sources.of(("reference", key), (f"{key}s",))
            shown = ", ".join(map(str, allowed))
            raise UserError(where, f"reference.{key}: got {value!r}, expected one of {shown}", SEE_KEYS)
    for trace, model in experiment.simulation.timed_as.items():
        _check_name(("simulation", "timed_as", trace), model, models, sources.of)
    for figure, shown in experiment.figure_models:
        check_names(f"figure_models.{figure}", shown, models, sources.of)
    return Settings(experiment=experiment, style=style)


SEE_KEYS = "Every key is explained in docs/configuration.md."


def check_names(key: str, names: Sequence[str], known: Collection[str], file_of: Callable[..., str]) -> None:
    """Refuse a name under `key` that is not `known`; `file_of` finds the file that holds it."""
    for number, name in enumerate(names):
        _check_name((*key.split("."), number), name, known, file_of)


def _check_name(at: tuple, name: str, known: Collection[str], file_of: Callable[..., str]) -> None:
    if name not in known:
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")
        raise UserError(file_of(at), f"{key}: {unknown_name(name, known)}", SEE_KEYS)


def unknown_name(name: str, known: Collection[str]) -> str:
    """Say that a name is not `known`, and which one may have been meant."""
    near = difflib.get_close_matches(name, known, n=1)
    expected = f"did you mean {near[0]!r}" if near else f"expected one of {', '.join(known)}"
    return f"unknown name {name!r}; {expected}"
