"""A reader of a checkpoint's config.json that knows which of its fields it has understood."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from prophet_moe.catalog.architecture import LARGEST_DEPTH, LARGEST_SIZE
from prophet_moe.errors import UserError
from prophet_moe.validation import shortened

NEXT_STEP = "Write the model's file by hand (docs/models.md), or report the field."
HARMLESS_NAMES = """
    _name_or_path _from_model_config architectures auto_map transformers_version torch_dtype dtype use_cache
    cache_implementation
    bos_token_id eos_token_id pad_token_id decoder_start_token_id sep_token_id unk_token_id mask_token_id
    initializer_range initializer_factor hidden_act hidden_activation activation_function rms_norm_eps layer_norm_eps
    layer_norm_epsilon norm_eps norm_epsilon attention_dropout hidden_dropout embd_pdrop resid_pdrop attn_pdrop dropout
    hidden_dropout_prob attention_probs_dropout_prob
    rope_theta rope_scaling rope_parameters rope_type rope_interleave rope_ratio partial_rotary_factor rotary_dim
    rotary_percent original_max_position_embeddings max_window_layers
    router_aux_loss_coef router_z_loss_coef aux_loss_alpha seq_aux output_router_logits router_jitter_noise
    norm_topk_prob scoring_func score_function topk_method routed_scaling_factor router_scaling_factor n_group
    topk_group num_expert_group num_limited_groups router_dtype
    output_attentions output_hidden_states return_dict use_return_dict tokenizer_class chunk_size_feed_forward
    pretraining_tp attn_implementation _attn_implementation is_encoder_decoder gradient_checkpointing
    final_logit_softcapping attn_logit_softcapping logits_scaling embedding_multiplier residual_multiplier
    attention_multiplier language model_max_length problem_type id2label label2id num_labels ep_size
    compress_rope_theta indexer_rope_interleave swiglu_limit hc_eps hc_sinkhorn_iters moe_router_dtype moe_renormalize
    moe_router_activation_func index_share_for_mtp_iteration mtp_loss_scaling_factor
"""
GENERATION_NAMES = """
    bad_words_ids begin_suppress_tokens suppress_tokens diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task is_decoder length_penalty max_length
    min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores prefix
    remove_invalid_values repetition_penalty return_dict_in_generate task_specific_params temperature tf_legacy_loss
    top_k top_p torchscript typical_p use_bfloat16 num_logits_to_keep
"""
HARMLESS = frozenset((HARMLESS_NAMES + GENERATION_NAMES).split())
"""Fields that change no byte: names, token ids, constants of norms, rotary positions, dropout, losses, scaling, and
how text is generated, which older versions of Transformers wrote into every part of a file."""
HARMLESS_AT: Mapping[str, Any] = {
    "add_cross_attention": False,
    "tie_encoder_decoder": False,
    "cross_attention_hidden_size": None,
    "pruned_heads": {},
    "per_layer_config": {},
}
"""Fields that change no byte at one value."""
TOKEN_IDS = ("_token_id", "_token_ids", "_token_index")
"""How the names of fields end that hold tokens."""

TIED = "tie_word_embeddings"
"""The field that says whether the output embedding is that of the input."""

REQUIRED = object()
"""Stands for the default of a field that a file must have."""


class Config:
    """The fields of one config.json, each marked as understood when it is read."""

    def __init__(self, fields: Mapping[str, Any], where: str, path: str = "", notes: list[str] | None = None) -> None:
        """Keep the fields of the file `where`; `path` leads to them where they are inside another field.

        All readers of a file have the same `notes`.
        """
        self.fields, self.where, self.path = fields, where, path
        self._read: set[str] = set()
        self.notes: list[str] = [] if notes is None else notes

    def has(self, *names: str) -> bool:
        """Return whether one of the names is there with a value that is not null."""
        return any(self.fields.get(name) is not None for name in names)

    def get(self, *names: str, default: Any = REQUIRED) -> Any:
        """Return a value by any of its names, marked as read; values under two names must be equal.

        A field that is missing, or null, has the default; without one it is a UserError.
        """
        self._read.update(names)
        given = {name: self.fields[name] for name in names if self.fields.get(name) is not None}
        if not given:
            if default is REQUIRED:
                self.refuse(names[0], "is missing, expected a value")
            return default
        (name, value), *others = given.items()
        for other, its in others:
            if its != value:
                self.refuse(name, f"got {shortened(repr(value))}, but {other} is {shortened(repr(its))}; expected one")
        return value

    def size(self, *names: str, default: Any = REQUIRED) -> Any:
        """Return a whole number above 0, or the default where there is none."""
        return self._whole(names, default, 1)

    def count(self, *names: str, default: Any = REQUIRED) -> Any:
        """Return a whole number of 0 or more, or the default where there is none."""
        return self._whole(names, default, 0)

    def _whole(self, names: tuple[str, ...], default: Any, least: int) -> Any:
        """Return a whole number within the limits of a size, or of a depth where it counts layers."""
        value = self.get(*names, default=default)
        largest = LARGEST_DEPTH if names[0].endswith("layers") else LARGEST_SIZE
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not default and not (whole and least <= value <= largest):
            expected = f"a whole number from {least} to {largest:,}"
            self.refuse(names[0], f"got {shortened(repr(value))}, expected {expected}")
        return value

    def flag(self, *names: str, default: Any = REQUIRED) -> bool:
        """Return true or false, or the default where there is none."""
        value = self.get(*names, default=default)
        if value is not default and not isinstance(value, bool):
            self.refuse(names[0], f"got {shortened(repr(value))}, expected true or false")
        return value

    def only(self, name: str, *allowed: Any, default: Any = REQUIRED) -> Any:
        """Return a value that must be one of those that the family is understood with."""
        value = self.get(name, default=default)
        if value is not default and value not in allowed:
            self.refuse(name, f"got {shortened(repr(value))}, expected {' or '.join(map(repr, allowed)) or 'none'}")
        return value

    def items(self, *names: str, length: int | None = None, default: Any = REQUIRED) -> list[Any]:
        """Return a list, of one entry per layer where `length` is given, or the default where there is none."""
        value = self.get(*names, default=default)
        if value is default:
            return value
        if not isinstance(value, list):
            self.refuse(names[0], f"got {shortened(repr(value))}, expected a list")
        if length is not None and len(value) != length:
            self.refuse(names[0], f"has {len(value)} entries, expected {length}, one per layer")
        return value

    def below(self, name: str, *inherited: str) -> "Config":
        """Return the reader of a mapping inside, such as text_config; it has the `inherited` fields of this one too.

        An inherited field that both have must be equal. Only `tie_word_embeddings` may be true inside, where it is the
        default of a class that Transformers 5 writes, of a model that says false of the whole.
        """
        value = self.get(name)
        if not isinstance(value, Mapping):
            self.refuse(name, f"got {shortened(repr(value))}, expected a mapping of fields")
        below = Config(value, self.where, f"{self.path}{name}.", self.notes)
        for each in inherited:
            outer, inner = self.get(each, default=None), below.fields.get(each)
            if None not in (outer, inner) and outer != inner:
                differs = f"got {shortened(repr(inner))}, but outside it is {shortened(repr(outer))}"
                if each != TIED or (outer, inner) != (False, True):
                    below.refuse(each, differs)
                below.note(f"{below.path}{each}: {differs}, which holds for the whole model")
            if outer is not None:
                below.fields = {**below.fields, each: outer}
        return below

    def ignore(self, *names: str) -> None:
        """Mark fields of this family that change no byte."""
        self._read.update(names)

    def note(self, text: str) -> None:
        """Keep a sentence about a field for the readers of the model's file."""
        self.notes.append(text)

    def refuse(self, name: str, problem: str) -> NoReturn:
        """Raise a UserError about a field."""
        raise UserError(self.where, f"{self.path}{name}: {problem}", NEXT_STEP)

    def refuse_unread(self) -> None:
        """Raise a UserError for the first field that nobody has understood; null is no value."""
        for name, value in self.fields.items():
            if value is not None and name not in self._read and not _is_harmless(name, value):
                self.refuse(name, f"got {shortened(repr(value))}, which is not understood for this model_type")


def _is_harmless(name: str, value: Any) -> bool:
    if name in HARMLESS_AT:
        return value == HARMLESS_AT[name]
    return name in HARMLESS or name.endswith(TOKEN_IDS)


def runs(layers: Sequence[str]) -> list[str]:
    """Return the pattern of a sequence of letters: repeated periods where there are some, else runs of equal letters.

    `DMMM` becomes `[D, 3 x M]`, `LLLFLLLF` becomes `[2 x LLLF]`, `DLLFLLF` becomes `[D, 2 x LLF]`.
    """
    text, start, found = "".join(layers), 0, []
    while start < len(text):
        repeats, period = _best_run(text, start)
        blocks = text[start : start + period]
        found.append(f"{repeats} x {blocks}" if repeats > 1 else blocks)
        start += repeats * period
    return _joined(found)


LONGEST_PERIOD = 32
"""Most blocks of a run that is repeated."""


def _best_run(text: str, start: int) -> tuple[int, int]:
    """Return (repeats, period) of the run at `start` that covers most; a single block where none repeats."""
    best = (1, 1)
    for period in range(1, min(LONGEST_PERIOD, len(text) - start) + 1):
        blocks, repeats = text[start : start + period], 1
        while text.startswith(blocks, start + repeats * period):
            repeats += 1
        if repeats > 1 and repeats * period > best[0] * best[1]:
            best = repeats, period
    return best


def _joined(pattern: list[str]) -> list[str]:
    """Return a pattern whose neighbouring runs without repeats are one."""
    joined: list[str] = []
    for run in pattern:
        if joined and " x " not in run and " x " not in joined[-1]:
            joined[-1] += run
        else:
            joined.append(run)
    return joined
