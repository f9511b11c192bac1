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
    """Index of the first such layer of the stack, counted from 0."""
    step: int = Field(default=1, ge=1)
    """Distance to the next such layer: 1 is every layer from the first on, 2 every second."""

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
    """Inner width of one routed expert, the size between its matrices."""
    gated: bool = True
    """Whether an FFN is gated, with three matrices, or plain, with two. It holds for experts and dense FFNs."""
    placement: Placement = Placement()
    """The layers that hold an MoE block."""
    shared_experts: int = Field(default=0, ge=0)
    """Shared experts of a layer, which every token uses, as the model's paper counts them."""
    shared_ffn: int = Field(default=0, ge=0)
    """Inner width of all shared experts together."""
    shared_gate: bool = False
    """Whether a sigmoid gate of `hidden` weights scales the shared experts' output. It is counted with the router."""

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
    """Multi-head (MHA), grouped-query (GQA, with MQA as its smallest) or multi-head latent attention (MLA)."""
    heads: int = Positive
    """Query heads of a layer."""
    kv_heads: int = Positive
    """Key and value heads of a layer: equal to `heads` for MHA, a divisor of it for GQA."""
    head_dim: int = Positive
    """Width of one query or key head. For MLA it is `nope_head_dim` + `rope_head_dim`."""
    placement: Placement = Placement()
    """The layers that have attention: all of them, but few in a hybrid model."""
    qkv_bias: bool = False
    """Whether the projections of queries, keys and values add a bias."""
    qk_norm: Literal["none", "per_head", "full_width"] = "none"
    """Norm of queries and keys: none, one of `head_dim` weights for all heads, or one of all heads' width."""
    q_lora_rank: int = Field(default=0, ge=0)
    """Rank of the compressed queries, for MLA only."""
    kv_lora_rank: int = Field(default=0, ge=0)
    """Rank of the latent that holds keys and values, for MLA only. The KV cache keeps it."""
    nope_head_dim: int = Field(default=0, ge=0)
    """Width of a head's part without rotary position, for MLA only."""
    rope_head_dim: int = Field(default=0, ge=0)
    """Width of the rotary part, for MLA only. All heads share one rotary key, which the KV cache keeps."""
    v_head_dim: int = Field(default=0, ge=0)
    """Width of one value head, for MLA only."""
    relative_buckets: int = Field(default=0, ge=0)
    """Buckets of T5's relative position bias, one table per stack. 0 is no such bias."""

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
    """SSM state values that a channel keeps for each sequence."""
    conv: int = Positive
    """Width of the convolution, and so the inputs of a channel that a sequence keeps."""
    inner: int = Positive
    """Channels of the block."""
    dt_rank: int = Positive
    """Rank of the projection that gives the step sizes."""


class Architecture(StrictModel):
    """A published architecture; every parameter is counted from these fields."""

    family: Literal["decoder", "encoder_decoder", "hybrid"]
    """Decoder, encoder and decoder, or a decoder of attention and Mamba layers."""
    layers: int = Field(gt=0, le=10_000)
    """Layers of the decoder, with an MoE block or without."""
    encoder_layers: int = Field(default=0, ge=0, le=10_000)
    """Layers of the encoder: 0 unless the family is `encoder_decoder`."""
    hidden: int = Positive
    """Width of the residual stream, the size of a token's hidden state."""
    vocab: int = Positive
    """Tokens of the vocabulary, rows of the embedding."""
    native_context: int = Positive
    """Context that the model was trained for, in tokens. Of an encoder-decoder it is a source's."""
    tied_embeddings: bool = False
    """Whether the output embedding is the input embedding, so that it is counted once."""
    norms_per_layer: int = Field(default=2, ge=0)
    """Norms of a layer, each of `hidden` weights. The last norm of a stack is counted beside them."""
    moe: Moe
    """The mixture-of-experts block, the same in each of its layers."""
    dense_ffn: int = Field(default=0, ge=0)
    """Inner width of the FFN in layers without an MoE block. 0 where every layer has one."""
    residual_ffn: int = Field(default=0, ge=0)
    """Inner width of a dense FFN beside every MoE block. 0 is none."""
    attention: Attention
    """Attention of a layer, the same in each of its layers."""
    mamba: Mamba | None = None
    """The Mamba-1 block of the layers without attention, for the family `hybrid` only."""

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
    """The number; none where nothing in the report determines it."""
    status: Literal["exact", "inferred", "unknown"]
    """`exact`: printed, or fixed by printed numbers. `inferred`: fitted to results. `unknown`: not determined."""
    source: str
    """Lines of the report that print the number (docs/reports.md), or the calculation that gives it."""
    interval: list[float] | None = None
    """Lowest and highest value that reproduces the report while all other constants are as given here."""
    interval_free_activation: list[float] | None = None
    """Lowest and highest value that reproduces the report while the rule of activations is free, too."""

    @model_validator(mode="after")
    def _unknown_or_valued(self) -> "Constant":
        if self.value is None and self.status != "unknown":
            raise inconsistent(("status",), f"got {self.status} without a value, expected unknown")
        return self


class Reported(StrictModel):
    """The constants that the report prints or implies for one model."""

    experts: Constant
    """Routed experts per MoE layer."""
    top_k: Constant
    """Routed experts that one token uses."""
    layers: Constant
    """Layers, which the report takes to hold an MoE block each."""
    expert_mb: Constant
    """One expert, in MB. The report divides by 1024 to get its GB."""
    expert_total_gb: Constant
    """All experts of all layers, in the report's GB."""
    total_params_b: Constant
    """All parameters, in 10^9."""
    active_params_b: Constant
    """Parameters that one token uses, in 10^9."""
    non_expert_gb: Constant
    """Everything but routed experts, in the report's GB."""
    activation_gb_per_sequence: Constant
    """Activations of one sequence, in the report's GB."""
    kv_bytes_per_token: Constant
    """KV cache of one token, in bytes."""
    native_context: Constant
    """Native context, in tokens."""
    forced_not_fitting: bool = False
    """Whether the model is set not to fit, since the report shows 0.00x and gives too little to compute it."""


class ModelSpec(StrictModel):
    """One model of the catalogue: its published architecture and the report's constants."""

    name: str
    """Name of the model in this project, equal to the file's name."""
    published_name: str
    """Name that the authors use."""
    hugging_face: str | None = None
    """Repository on huggingface.co, as owner/name."""
    arxiv: str | None = None
    """Number of the paper on arXiv, as text."""
    licence: str
    """Licence of the weights."""
    published_total_b: float = Field(gt=0, le=100_000)
    """All parameters that the authors state, in 10^9. The count is compared with it."""
    published_active_b: float | None = None
    """Parameters that one token uses, in 10^9, as the authors state them."""
    sources: list[str] = Field(min_length=1)
    """Where the architecture comes from: configuration files and papers, with their versions."""
    notes: list[str] = []
    """What a reader should know, such as values that sources disagree on."""
    verified_by: list[str] = []
    """Checks that the counts passed."""
    architecture: Architecture
    """The published architecture, from which every parameter and KV byte is counted."""
    reported: Reported | None = None
    """The report's constants. A model without them is left out of scenario `reported`."""


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
