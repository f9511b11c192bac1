"""Models: the published architecture, and the constants that the report printed or implied."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from prophet_moe.errors import UserError
from prophet_moe.validation import StrictModel, inconsistent, read_yaml, validate

Positive = Field(gt=0)


class Placement(StrictModel):
    """Which layers of a stack: `first`, `first + step`, `first + 2 step`, ..."""

    first: int = Field(default=0, ge=0)
    step: int = Field(default=1, ge=1)

    def layers(self, count: int) -> range:
        """Return the indices of the placed layers in a stack of `count` layers."""
        return range(self.first, count, self.step)


class Moe(StrictModel):
    """The mixture-of-experts block: routed and shared experts and their widths."""

    experts: int = Positive
    """Routed experts per MoE layer, E."""
    top_k: int = Positive
    """Routed experts that one token uses, k."""
    ffn: int = Positive
    """Inner width of one routed expert."""
    gated: bool = True
    """Gated FFN (three matrices) or plain (two)."""
    placement: Placement = Placement()
    """The layers that hold an MoE block."""
    shared_experts: int = Field(default=0, ge=0)
    """Experts that every token uses, as the model's paper counts them."""
    shared_ffn: int = Field(default=0, ge=0)
    """Inner width of all shared experts together."""
    shared_gate: bool = False
    """A sigmoid gate of `hidden` weights on the shared output; counted with the router."""

    @model_validator(mode="after")
    def _counts_agree(self) -> "Moe":
        if self.top_k > self.experts:
            raise inconsistent(("top_k",), f"got {self.top_k}, expected at most experts, {self.experts}")
        if (self.shared_experts > 0) != (self.shared_ffn > 0):
            raise inconsistent(("shared_ffn",), f"got {self.shared_ffn} for {self.shared_experts} shared_experts")
        return self


class Attention(StrictModel):
    """The attention of one layer: its kind, heads, head widths and ranks."""

    kind: Literal["MHA", "GQA", "MLA"]
    heads: int = Positive
    kv_heads: int = Positive
    head_dim: int = Positive
    placement: Placement = Placement()
    """The layers that attend (hybrid models attend in few)."""
    qkv_bias: bool = False
    qk_norm: Literal["none", "per_head", "full_width"] = "none"
    q_lora_rank: int = Field(default=0, ge=0)
    kv_lora_rank: int = Field(default=0, ge=0)
    nope_head_dim: int = Field(default=0, ge=0)
    rope_head_dim: int = Field(default=0, ge=0)
    v_head_dim: int = Field(default=0, ge=0)
    relative_buckets: int = Field(default=0, ge=0)
    """T5 relative position buckets, one table per stack."""

    @model_validator(mode="after")
    def _mla_is_complete(self) -> "Attention":
        for rank in ("q_lora_rank", "kv_lora_rank", "nope_head_dim", "rope_head_dim", "v_head_dim"):
            if self.kind == "MLA" and not getattr(self, rank):
                raise inconsistent((rank,), "got 0, expected a size above 0 for kind MLA")
        if self.kind == "MLA" and self.head_dim != self.nope_head_dim + self.rope_head_dim:
            raise inconsistent(
                ("head_dim",), f"got {self.head_dim}, expected nope_head_dim + rope_head_dim for kind MLA"
            )
        if self.kv_heads > self.heads:
            raise inconsistent(("kv_heads",), f"got {self.kv_heads}, expected at most heads, {self.heads}")
        if self.heads % self.kv_heads:
            raise inconsistent(("kv_heads",), f"got {self.kv_heads}, expected a divisor of heads, {self.heads}")
        if self.kind == "MHA" and self.kv_heads < self.heads:
            problem = f"got {self.kv_heads} for kind MHA, expected heads, {self.heads}, or kind GQA"
            raise inconsistent(("kv_heads",), problem)
        return self


class Mamba(StrictModel):
    """The Mamba-1 block of a hybrid model, by its four sizes."""

    state: int = Positive
    conv: int = Positive
    inner: int = Positive
    dt_rank: int = Positive


class Architecture(StrictModel):
    """A published architecture; every parameter is counted from these fields."""

    family: Literal["decoder", "encoder_decoder", "hybrid"]
    layers: int = Field(gt=0, le=10_000)
    """Layers of the decoder."""
    encoder_layers: int = Field(default=0, ge=0, le=10_000)
    hidden: int = Positive
    vocab: int = Positive
    native_context: int = Positive
    """Context that the model was trained for, tokens."""
    tied_embeddings: bool = False
    norms_per_layer: int = 2
    moe: Moe
    dense_ffn: int = Field(default=0, ge=0)
    """Inner width of the FFN in layers without an MoE block."""
    residual_ffn: int = Field(default=0, ge=0)
    """Inner width of a dense FFN beside every MoE block."""
    attention: Attention
    mamba: Mamba | None = None

    @model_validator(mode="after")
    def _parts_fit_family(self) -> "Architecture":
        if (self.family == "encoder_decoder") != (self.encoder_layers > 0):
            raise inconsistent(("encoder_layers",), f"got {self.encoder_layers} for family {self.family}")
        if (self.family == "hybrid") != (self.mamba is not None):
            raise inconsistent(("mamba",), f"expected exactly for family hybrid, the family is {self.family}")
        stacks = (self.layers, self.encoder_layers)
        if any(len(self.moe.placement.layers(depth)) < depth for depth in stacks) and not self.dense_ffn:
            raise inconsistent(("dense_ffn",), "got 0 although some layers hold no MoE block, expected its width")
        return self


class Constant(StrictModel):
    """A number of the report with what is known about it."""

    value: float | int | None
    status: Literal["exact", "inferred", "unknown"]
    """exact: printed, or fixed by printed numbers; inferred: fitted to the report's results; unknown: undetermined."""
    source: str
    interval: list[float] | None = None
    """Values that reproduce the report, other constants as given here."""
    interval_free_activation: list[float] | None = None
    """Values that reproduce the report with the activation rule left free."""

    @model_validator(mode="after")
    def _unknown_or_valued(self) -> "Constant":
        if self.value is None and self.status != "unknown":
            raise inconsistent(("status",), f"got {self.status} without a value, expected unknown")
        return self


class Reported(StrictModel):
    """The constants that the report prints or implies for one model."""

    experts: Constant
    top_k: Constant
    layers: Constant
    expert_mb: Constant
    """One expert, MB; the report divides by 1024 to get its GB."""
    expert_total_gb: Constant
    total_params_b: Constant
    active_params_b: Constant
    non_expert_gb: Constant
    activation_gb_per_sequence: Constant
    kv_bytes_per_token: Constant
    native_context: Constant
    forced_not_fitting: bool = False
    """The report shows 0.00x everywhere and gives too little to compute it: a preset, not a result."""


class ModelSpec(StrictModel):
    """One model of the catalogue: its published architecture and the report's constants."""

    name: str
    published_name: str
    hugging_face: str | None = None
    arxiv: str | None = None
    licence: str
    published_total_b: float = Field(gt=0, le=100_000)
    """Parameters that the authors state, 10^9."""
    published_active_b: float | None = None
    sources: list[str] = Field(min_length=1)
    notes: list[str] = []
    verified_by: list[str] = []
    architecture: Architecture
    reported: Reported | None = None
    """Absent for models that the report does not cover; they are left out of scenario `reported`."""


def model_names(folder: Path) -> list[str]:
    """Return the names of the models in `folder`, sorted: one YAML file each."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_models(folder: Path, names: Sequence[str] | None = None) -> dict[str, ModelSpec]:
    """Read the models of `folder`; with `names`, just those. An unknown name is a UserError."""
    available = model_names(folder)
    for name in names or ():
        if name not in available:
            near = difflib.get_close_matches(name, available, n=1)
            hint = f"did you mean {near[0]!r}" if near else f"known: {', '.join(available)}"
            raise UserError(
                "models", f"unknown model {name!r}; {hint}", f"Add {folder / name}.yaml or correct the name."
            )
    return {name: load_model(folder / f"{name}.yaml") for name in names or available}


def load_model(path: Path) -> ModelSpec:
    """Read one model file; its `name` must equal the file's name."""
    spec = validate(ModelSpec, read_yaml(path), str(path), "Mend that key.")
    if spec.name != path.stem:
        raise UserError(str(path), f"name: got {spec.name!r}, expected the file's name {path.stem!r}", "Rename one.")
    return spec
