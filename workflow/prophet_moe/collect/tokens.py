"""Tokens of the corpus: the tokenizer, and the arrays that models train and are evaluated on."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|end|>"
"""Ends every piece of text."""


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Return a byte-level BPE tokenizer of `vocabulary` tokens; every text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Read the tokenizer that was saved as the tokenizer.json at `path`."""
    return Tokenizer.from_file(str(path))


def encode(tokenizer: Tokenizer, pieces: list[str]) -> list[np.ndarray]:
    """Return token ids of every piece, int64, each with the END token last."""
    end = tokenizer.token_to_id(END)
    return [np.array([*encoding.ids, end], np.int64) for encoding in tokenizer.encode_batch(pieces)]


def unigram_entropy(train: np.ndarray, held_out: np.ndarray, vocabulary: int) -> float:
    """Return nats per token of `held_out` under the token frequencies of `train` (one added to each count)."""
    counts = np.bincount(train, minlength=vocabulary) + 1.0
    return float(-np.log(counts / counts.sum())[held_out].mean())


def bigram_entropy(train: np.ndarray, held_out: np.ndarray, vocabulary: int) -> float:
    """Return nats per token of `held_out` under the pair counts of `train`, smoothed by absolute discounting.

    p(b|a) = max(n(a,b) - d, 0) / n(a) + d distinct(a) / n(a) p(b), d = 0.75 (Ney, Essen and Kneser 1994).
    """
    discount = 0.75
    unigram = np.bincount(train, minlength=vocabulary) + 1.0
    unigram /= unigram.sum()
    pairs, counts = np.unique(train[:-1] * vocabulary + train[1:], return_counts=True)
    total = np.bincount(pairs // vocabulary, weights=counts, minlength=vocabulary)
    distinct = np.bincount(pairs // vocabulary, minlength=vocabulary)

    before, after = held_out[:-1], held_out[1:]
    wanted = before * vocabulary + after
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    count = np.where(pairs[place] == wanted, counts[place], 0)
    seen = total[before] > 0
    divisor = np.where(seen, total[before], 1)
    backed_off = np.where(seen, discount * distinct[before] / divisor, 1.0) * unigram[after]
    return float(-np.log(np.maximum(count - discount, 0) / divisor + backed_off).mean())
