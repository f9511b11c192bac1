"""Serving engines: what each keeps on a GPU beside a model's bare weights and cache, with the source of every term."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from prophet_moe.errors import UserError
from prophet_moe.validation import StrictModel, inconsistent, read_yaml, validate

LARGEST_GIB = 1000
"""Upper limit of a term in GiB, to catch typing errors: no GPU has as much memory."""

Gib = Annotated[float, Field(ge=0, le=LARGEST_GIB)]
Multiple = Annotated[int, Field(ge=1, le=2**16)]
Whole = Annotated[int, Field(ge=1, le=2**31)]
Share = Annotated[float, Field(gt=0, le=1)]
Version = Annotated[str, Field(pattern=r"^\d{1,4}(\.\d{1,4}){0,2}$")]


class ExpertPadding(StrictModel):
    """Multiples to which the matrices of routed experts are padded by the kernels of one format."""

    hidden: Multiple
    """Multiple of the width that experts act on."""
    ffn: Multiple
    """Multiple of an expert's inner width."""


class EngineWeights(StrictModel):
    """What an engine holds of a model's weights, beside their bytes in the formats of the checkpoint."""

    rotary_table: bool = False
    """Whether the table of rotary positions is resident: positions x rotary width x 2 bytes, once a GPU."""
    allocator_rounds: bool = False
    """Whether a tensor of routed experts takes up to 1 MiB more: PyTorch keeps blocks of 2 MiB whole where no more is
    left over."""
    vocab_multiple: Multiple = 1
    """Multiple to which the rows of the embeddings are padded before they are split."""
    absorbed_mla: Literal["none", "products", "up_projections"] = "none"
    """Further matrices of latent attention. `products` are query with key and value with output projections, in the
    format of an 8-bit checkpoint and else in 16 bits, and the rotary part of the query projection in 16 bits.
    With them, and alone with `up_projections`, a quantised checkpoint has its up-projections of keys and values once
    more in 16 bits."""
    padding: dict[str, ExpertPadding] = {}
    """Padding of routed experts in the format mxfp4, by the kernels that run them."""
    kernels: str | None = None
    """Kernels of `padding` that the engine takes where its user names none."""
    rest_of_layers: Literal["before_last", "last"] = "before_last"
    """Pipeline stages that take the layers which do not divide: those before the last one, or the last one."""
    head_on_every_stage: bool = False
    """Whether the first pipeline stages hold the output embedding of models with latent attention, too."""
    shared_expert_copies: Literal["one", "one_per_gpu"] = "one"
    """Whether the shared expert is split over the GPUs, or fused with the routed experts as one whole copy a GPU."""


class EngineCache(StrictModel):
    """How an engine lays out the KV cache on one GPU."""

    latent_multiple: Multiple = 1
    """Multiple to which the entry of a latent is padded, in values."""
    sparse_mla: bool = False
    """Whether an 8-bit cache of sparse latent attention has the layout `fp8_sparse_mla` of docs/precision.md."""
    decompressed_mla: bool = False
    """Whether keys and values of latent attention are cached expanded, for every head."""
    windows_count_as_full: bool = False
    """Whether layers with a window are counted as if they kept all tokens, as the printed capacity then is."""
    window_beside_batch: bool = False
    """Whether a layer with a window keeps the tokens of a step beside it."""
    window_multiple: Multiple = 1
    """Multiple to which the tokens of such a layer are padded."""
    window_spare: Annotated[int, Field(ge=0, le=2**16)] = 0
    """Tokens of such a layer beside these, such as a block that is partly filled."""
    block_tokens: Whole = 1
    """Tokens of a block. A pool holds whole blocks."""


class EngineRuntime(StrictModel):
    """Memory of a GPU that is neither weights, nor cache, nor activations."""

    context_gib: Gib = 0
    """CUDA context and driver, GiB: what is in use before the engine counts."""
    non_torch_gib: Gib = 0
    """Libraries and communication buffers, GiB, on one GPU or over a slow link."""
    non_torch_fast_link_gib: Gib = 0
    """The same with tensor or expert parallelism between GPUs with a link of their own, GiB."""
    fast_link_cards: list[str] = []
    """Cards that have a link among them beside PCIe, by a word of their name. Large cards have one, too, unless their
    name says PCIe."""
    graphs_gib_per_layer: Gib = 0
    """CUDA graphs per layer of the GPU, GiB, unless the engine runs eagerly."""
    graphs_in_budget: bool = False
    """Whether graphs are taken from the share of memory that the engine may use."""


class EngineReservation(StrictModel):
    """What an engine keeps free for activations: the larger of a forward pass and of sampling."""

    forward: bool = True
    """Whether a forward pass of the scheduler's tokens is reserved, rather than of the tokens in flight."""
    moe_chunk_tokens: Whole | None = None
    """Tokens that the experts work through at once; none given: all."""
    logits_bytes: Annotated[float, Field(ge=0, le=1000)] = 6
    """Bytes per entry of the vocabulary and sequence (or token) while the next token is sampled."""
    logits_of: Literal["sequences", "tokens"] = "sequences"
    """Whether logits are held for every sequence, or for every token of the batch."""


class EngineScheduler(StrictModel):
    """Limits that an engine has where its user names none."""

    memory_share: Share = 1
    """Share of the memory that the engine may use."""
    pool: Literal["rest_of_share", "rest_of_free", "rest_of_card"] = "rest_of_card"
    """Size of the KV pool. `rest_of_share`: a share of the card without weights, libraries and activations; the context
    lies outside. `rest_of_free`: a share of what is free at the start, without weights; activations lie outside.
    `rest_of_card`: a share of the card without everything."""
    large_card_gib: Gib = 70
    """Memory of a card from which it counts as large, GiB."""
    never_large: list[str] = []
    """Cards that do not count as large, by the first word of their name."""
    sequences: Whole = 1
    """Most sequences of a step."""
    sequences_large_card: Whole = 1
    """Most sequences of a step on a large card."""
    tokens: Whole = 2048
    """Most tokens of a step."""
    tokens_large_card: Whole = 2048
    """Most tokens of a step on a large card."""
    tokens_follow_context: Whole | None = None
    """Longest sequence up to which a step takes as many tokens as one sequence may have; none given: it never does."""
    whole_latent_prompts: bool = False
    """Whether a step takes as many tokens as one sequence may have in models with latent attention, however long: their
    prompts are not cut into chunks."""


class Evidence(StrictModel):
    """Where a term of an engine comes from, and the observations that fixed it."""

    source: Annotated[str, Field(min_length=1)]
    """Source file, release, document or reasoning behind the term."""
    rows: list[str] = []
    """Ids of the observations in resources/observations/memory.csv that fixed the term; none: it was not fitted."""


class EngineSpec(StrictModel):
    """One serving engine, or some versions of it: the terms of its memory."""

    name: str
    """Name of the profile, equal to the file's name."""
    engine: Literal["vllm", "sglang", "llama.cpp", "freetoken", "transformers", "ideal"]
    """Engine that the profile describes."""
    title: str
    """Engine and versions in words."""
    since: Version | None = None
    """First version that the profile describes; none given: all earlier ones too."""
    before: Version | None = None
    """First later version that the profile does not describe; none given: all later ones too."""
    generation: Literal["V0", "V1"] | None = None
    """Generation of the engine within these versions that the profile describes; none given: that which no other
    profile describes."""
    checked_to: Version | None = None
    """Newest version whose logs were read; `observe add` refuses a newer one unless it is told to read it."""
    weights: EngineWeights = EngineWeights()
    """Terms of the weights."""
    cache: EngineCache = EngineCache()
    """Terms of the KV cache."""
    runtime: EngineRuntime = EngineRuntime()
    """Terms of libraries, graphs and the CUDA context."""
    reservation: EngineReservation = EngineReservation()
    """Terms of what is reserved for activations."""
    scheduler: EngineScheduler = EngineScheduler()
    """Limits of the scheduler and of memory where nobody names others."""
    evidence: dict[str, Evidence]
    """Source of every term that this file gives, by its path: `runtime.context_gib`."""

    @model_validator(mode="after")
    def _terms_have_evidence(self) -> "EngineSpec":
        given = set(self.given_terms())
        for term in sorted(given - set(self.evidence)):
            raise inconsistent(("evidence", term), "missing, expected the source of a term that the file gives")
        for term in sorted(set(self.evidence) - given):
            problem = f"explains no term that the file gives, expected one of {', '.join(sorted(given))}"
            raise inconsistent(("evidence", term), problem)
        return self

    def given_terms(self) -> Iterator[str]:
        """Yield the paths of the terms that the file gives."""
        for name in SECTIONS:
            yield from (f"{name}.{term}" for term in sorted(getattr(self, name).model_fields_set))

    def term(self, path: str) -> Any:
        """Return the value of a term by its path."""
        section, name = path.split(".")
        return getattr(getattr(self, section), name)

    def describes(self, version: tuple[int, ...]) -> bool:
        """Return whether the profile describes a version of its engine."""
        return _numbers(self.since or "0") <= version and (self.before is None or version < _numbers(self.before))


SECTIONS = {
    "weights": EngineWeights,
    "cache": EngineCache,
    "runtime": EngineRuntime,
    "reservation": EngineReservation,
    "scheduler": EngineScheduler,
}
"""The sections of a profile whose terms need evidence."""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def version_in(text: str) -> tuple[int, ...] | None:
    """Return the first version number in a text, such as (0, 10, 2) of `~0.10.2 (V1)`; None without any."""
    found = re.search(r"\d{1,4}(?:\.\d{1,4}){1,2}", text)
    return _numbers(found[0]) if found else None


def load_engine(path: Path) -> EngineSpec:
    """Read one profile; its `name` must equal the file's name."""
    spec = validate(EngineSpec, read_yaml(path), str(path), "Mend that key.")
    if spec.name != path.stem:
        raise UserError(str(path), f"name: got {spec.name!r}, expected the file's name {path.stem!r}", "Rename one.")
    return spec


def load_engines(folder: Path) -> dict[str, EngineSpec]:
    """Read every profile of a folder, by name."""
    return {path.stem: load_engine(path) for path in sorted(folder.glob("*.yaml"))}


def find_engine(text: str, folder: Path) -> EngineSpec:
    """Return the profile of a name or of a YAML file; an unknown name is a UserError that lists those of `folder`."""
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        return load_engine(path)
    known = sorted(found.stem for found in folder.glob("*.yaml"))
    if text not in known:
        raise UserError("engine", f"unknown engine {text!r}, {folder} has {', '.join(known)}", "Correct the name.")
    return load_engine(folder / f"{text}.yaml")


def profile_of(engine: str, version: str, engines: dict[str, EngineSpec]) -> EngineSpec | None:
    """Return the profile that describes a version of an engine, such as `0.8.1 (V0)`; the newest one without a version.

    None where no profile is of that engine, or none of them describes the version.
    """
    software = {"ik_llama.cpp": "llama.cpp"}.get(engine, engine)
    ours = [spec for spec in engines.values() if spec.engine == software]
    number = version_in(version)
    if number is None:
        newest = [spec for spec in ours if spec.before is None]
        return newest[-1] if newest else None
    found = {spec.generation: spec for spec in ours if spec.describes(number)}
    named = re.search(r"\bV[01]\b", version)
    return found.get(named[0] if named else None) or found.get(None)
