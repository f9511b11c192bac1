"""Statistics of routing traces: load, persistence, predictability, and distinct experts by batch.

In shapes: N tokens, L MoE layers, E experts, k choices per token, S sequences. Every result is by layer. All tokens of
a trace count, whatever their phase: pass `trace.described()` for those of decoding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from prophet_moe.routing.sequences import follows, popularity
from prophet_moe.routing.trace import Trace, sequence_starts

Floats = NDArray[np.float64]
Batching = Literal["decode_step", "staggered", "prefill"]


def load(trace: Trace) -> Floats:
    """(L, E): share of all choices that fall on each expert; each layer sums to 1."""
    return popularity(trace) / trace.router.top_k


def load_skew(load: Floats) -> Floats:
    """(L,): max/mean of `load` (L, E); 1 where all experts are chosen equally, E/k at most."""
    return load.max(axis=1) / load.mean(axis=1)


def load_entropy(load: Floats) -> Floats:
    """(L,): -sum p log2 p of `load` (L, E), bits; divide by log2(E) for a share of the most possible."""
    return -np.sum(load * np.log2(load, where=load > 0, out=np.zeros_like(load)), axis=1)


def consecutive_overlap(trace: Trace) -> Floats:
    """(L,): mean of |A n B| / k over the pairs A, B of consecutive tokens; k/E for independent uniform choices.

    Every pair of a sequence weighs the same, so long sequences weigh more. NaN where no token follows another.
    """
    following = follows(trace)
    common = _common_choices(trace.experts, following)
    return common / (following.sum() * trace.router.top_k) if following.any() else np.full(len(common), np.nan)


def first_choice_repetition(trace: Trace) -> Floats:
    """(L,): share of consecutive tokens with the same first choice (Mixtral, Table 5); for ranked traces.

    NaN where no token follows another.
    """
    if not trace.ranked:
        raise ValueError("the choices of this trace are not in rank order")
    first, following = trace.experts[:, :, 0], follows(trace)[1:]
    if not following.any():
        return np.full(first.shape[1], np.nan)
    return (first[1:] == first[:-1])[following].mean(axis=0)


def choice_counts(trace: Trace) -> NDArray[np.int64]:
    """(L, E): number of tokens of a trace that choose each expert."""
    experts = trace.router.experts
    return np.array([np.bincount(chosen.ravel(), minlength=experts) for chosen in trace.experts.swapaxes(0, 1)])


def shared_choices(trace: Trace) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of consecutive tokens and, by layer (L,), their shared choices and those with the same first."""
    following, first = follows(trace), trace.experts[:, :, 0]
    repeated = (first[1:] == first[:-1])[following[1:]].sum(axis=0)
    return int(following.sum()), _common_choices(trace.experts, following), repeated


@njit(cache=True)
def _common_choices(experts, following):
    """(L,): choices that a token shares with the token before, summed over the tokens that follow one."""
    tokens, layers, top_k = experts.shape
    common = np.zeros(layers, np.int64)
    for row in range(1, tokens):
        if following[row]:
            for layer in range(layers):
                for a in range(top_k):
                    for b in range(top_k):
                        common[layer] += experts[row, layer, a] == experts[row - 1, layer, b]
    return common


@dataclass(frozen=True)
class Recall:
    """Share of the true choices inside the top K of a ranking: (number of K, L - 1), layers from the second on."""

    ranks: tuple[int, ...]
    """The ranks K of the recalls."""
    naive_bayes: Floats
    """Recall of the ranking by log P(e) + sum over j of log P(j|e)."""
    posterior: Floats
    """Recall of the ranking by the sum over j of log P(e|j), which counts P(e) k times; some call it naive Bayes."""
    popularity: Floats
    """Recall of the ranking by P(e)."""


def next_layer_recall(train: Trace, test: Trace, ranks: Sequence[int] | None = None) -> Recall:
    """Return Recall@K (default k and 2k) on `test` of experts ranked by what `train` tells.

    j runs over the ids that the token chose in the layer before. P(e) and P(j|e) are those of `naive_bayes`;
    P(e|j) = (n_je + 1) / (sum_e n_je + E). Equal scores rank by id.
    """
    experts, layers = train.router.experts, len(train.router.layers)
    ranks = tuple(ranks or (train.router.top_k, 2 * train.router.top_k))
    recalls = np.empty((3, len(ranks), layers - 1))
    for layer in range(1, layers):
        before, now = test.experts[:, layer - 1], test.experts[:, layer]
        joint = joint_counts(train.experts[:, layer - 1], train.experts[:, layer], experts)
        prior, given = naive_bayes(joint, train.experts[:, layer])
        posterior, nothing = np.log((joint + 1.0) / (joint + 1.0).sum(axis=1, keepdims=True)), np.zeros_like(given)
        rankings = ((prior, given), (nothing[0], posterior), (prior, nothing))
        for ranking, scores in enumerate(rankings):
            within_rank = np.cumsum(_true_ranks(*scores, before, now))
            recalls[ranking, :, layer - 1] = within_rank[np.minimum(ranks, experts) - 1] / now.size
    return Recall(ranks, *recalls)


def naive_bayes(joint: NDArray[np.int64], chosen: NDArray[np.uint16]) -> tuple[Floats, Floats]:
    """Return log P(e), (E,), and log P(j|e), (E, E), from counts n_je (`joint_counts`) and choices (n, k).

    P(e) = (n_e + 1) / (sum n + E), P(j|e) = (n_je + 1) / (sum_j n_je + E). An expert's score is the sum of its log P(e)
    and of log P(j|e) over the ids j seen, as if these were independent given e.
    """
    often, smoothed = np.bincount(chosen.ravel(), minlength=len(joint)) + 1.0, joint + 1.0
    return np.log(often / often.sum()), np.log(smoothed / smoothed.sum(axis=0))


@njit(cache=True)
def joint_counts(seen, chosen, experts):
    """(E, E): tokens that have j among `seen` (n, any) and e among `chosen` (n, k); ids from E on are nothing seen."""
    joint = np.zeros((experts, experts), np.int64)
    for row in range(len(chosen)):
        for j in seen[row]:
            if j < experts:
                for e in chosen[row]:
                    joint[j, e] += 1
    return joint


@njit(cache=True)
def _true_ranks(prior, evidence, before, now):
    """(E,): how often a true choice had each rank, from 0, in the scores prior[e] + sum of evidence[j, e]."""
    tokens, top_k = now.shape
    experts = len(prior)
    counts = np.zeros(experts, np.int64)
    scores = np.empty(experts)
    for row in range(tokens):
        scores[:] = prior
        for a in range(top_k):
            scores += evidence[before[row, a]]
        for b in range(top_k):
            chosen = now[row, b]
            rank = 0
            for other in range(experts):
                rank += scores[other] > scores[chosen] or (scores[other] == scores[chosen] and other < chosen)
            counts[rank] += 1
    return counts


@dataclass(frozen=True)
class Information:
    """Mutual information of token id and expert by layer, (L,), bits; and what chance alone gives."""

    bits: Floats
    control: Floats
    """Bits after the token ids were shuffled over all tokens: the bias of counting few samples."""


def token_information(trace: Trace, choice: Literal["first", "any"] = "any", seed: int = 0) -> Information:
    """Estimate I(token; expert) = sum p(t, e) log2(p(t, e) / (p(t) p(e))), in bits, by layer.

    The expert is the token's first choice (ranked traces), or any one of its k choices, each with probability 1/k.
    """
    if trace.token is None:
        raise ValueError("the trace holds no token ids")
    if choice == "first" and not trace.ranked:
        raise ValueError("the choices of this trace are not in rank order")
    chosen = trace.experts[:, :, :1] if choice == "first" else trace.experts
    tokens = np.unique(trace.token, return_inverse=True)[1]
    mixed = np.random.default_rng(seed).permutation(tokens)
    return Information(*(_mutual_information(ids, chosen, trace.router.experts) for ids in (tokens, mixed)))


def _mutual_information(tokens: NDArray[np.int64], chosen: NDArray[np.uint16], experts: int) -> Floats:
    choices = chosen.shape[0] * chosen.shape[2]
    bits = np.empty(chosen.shape[1])
    for layer in range(len(bits)):
        pairs = (tokens[:, None] * experts + chosen[:, layer]).ravel()
        joint = np.bincount(pairs, minlength=experts * (tokens.max() + 1)).reshape(-1, experts)
        entropies = [load_entropy(p.reshape(1, -1) / choices)[0] for p in (joint.sum(1), joint.sum(0), joint)]
        bits[layer] = entropies[0] + entropies[1] - entropies[2]
    return bits


def distinct_by_batch(
    trace: Trace,
    batches: Sequence[int],
    batching: Batching = "decode_step",
    samples: int = 2000,
    seed: int = 0,
    copies: NDArray[np.int64] | None = None,
) -> Floats:
    """Estimate u(B), the distinct experts that B tokens choose in a layer, from random batches of a trace.

    Parameters
    ----------
    trace : Trace
        The tokens that count, of any phase.
    batches : sequence of int
        Tokens B of a batch.
    batching : {"decode_step", "staggered", "prefill"}
        How batches are drawn, see Notes.
    samples : int
        Random batches.
    seed : int
        Seed of the draw.
    copies : array (S,) of int, optional
        How often each sequence counts, once by default; one batch never holds a sequence twice.

    Returns
    -------
    array (number of batches, L)
        Means over the batches; NaN where no draw has B tokens.

    Notes
    -----
    `decode_step`: step t is the place of a random token in its sequence, so that a step weighs as many as run at it;
    then B sequences are drawn without replacement among those with a token t. `staggered`: B sequences, each at a
    random token of its own, as in continuous batching. `prefill`: B consecutive tokens from a random token on. A draw
    with fewer tokens than B counts for the smaller B only.
    """
    return _mean_distinct(distinct_counts(trace, batches, batching, samples, seed, copies))


def distinct_quantile(
    trace: Trace,
    batches: Sequence[int],
    share: float,
    batching: Batching = "staggered",
    samples: int = 2000,
    seed: int = 0,
) -> Floats:
    """(number of batches,): distinct experts that `share` of the layer-steps of random batches do not exceed.

    Layers are taken together, and batches drawn as in `distinct_by_batch`; NaN where no draw has B tokens.
    """
    counts = distinct_counts(trace, batches, batching, samples, seed).sum(axis=1)
    reached = np.cumsum(counts, axis=1)
    least = (reached >= share * reached[:, -1:]).argmax(axis=1)
    return np.where(reached[:, -1] > 0, least, np.nan)


def distinct_counts(
    trace: Trace,
    batches: Sequence[int],
    batching: Batching,
    samples: int,
    seed: int = 0,
    copies: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """(number of batches, L, E + 1): how many of the random batches have so many distinct experts in a layer.

    Batches are drawn as in `distinct_by_batch`.
    """
    return _counts(trace, batches, batching, samples, seed, copies)[0]


def requests_by_batch(
    trace: Trace,
    batches: Sequence[int],
    batching: Batching,
    samples: int,
    seed: int = 0,
    copies: NDArray[np.int64] | None = None,
) -> Floats:
    """(2, number of batches, L): distinct experts, and choices whose expert another token of the batch chooses too.

    Means over random batches, as `distinct_by_batch` draws them.
    """
    counts, single = _counts(trace, batches, batching, samples, seed, copies)
    choices = trace.router.top_k * np.asarray(batches)[:, None]
    lines = counts.sum(axis=2)
    return np.stack([_mean_distinct(counts), choices - single / np.where(lines > 0, lines, np.nan)])


def _mean_distinct(counts: NDArray[np.int64]) -> Floats:
    lines = counts.sum(axis=2)
    return counts @ np.arange(counts.shape[2]) / np.where(lines > 0, lines, np.nan)


def _counts(
    trace: Trace,
    batches: Sequence[int],
    batching: Batching,
    samples: int,
    seed: int,
    copies: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of random batches by size and layer: how many have so many distinct experts, and the ids chosen once, summed."""
    rows = random_batches(trace, max(batches), batching, samples, seed, copies)
    sizes, places = np.unique(batches, return_inverse=True)
    counts, single = _counted(trace.experts, rows, trace.router.experts, sizes)
    return counts[places], single[places]


def random_batches(
    trace: Trace,
    size: int,
    batching: Batching,
    samples: int,
    seed: int,
    copies: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """(samples, size): rows of the tokens of random batches, drawn as in `distinct_by_batch`; -1 beyond their last."""
    rng = np.random.default_rng(seed)
    starts = sequence_starts(trace)
    copies = np.ones(len(starts) - 1, np.int64) if copies is None else copies
    tokens = _weighted_tokens(starts, copies, samples, rng)
    pool = np.repeat(np.arange(len(copies)), copies)
    if batching == "decode_step":
        owner = np.searchsorted(starts, tokens, side="right") - 1
        return _decode_batches(starts, pool, tokens - starts[owner], size, rng)
    if batching == "staggered":
        return _staggered_batches(starts, pool, samples, size, rng)
    return _prefill_batches(follows(trace), tokens, size)


def bootstrap_distinct(
    trace: Trace,
    batches: Sequence[int],
    batching: Batching = "decode_step",
    samples: int = 500,
    resamples: int = 200,
    seed: int = 0,
) -> Floats:
    """(2, number of batches): 95 % interval of u(B), mean over layers, from sequences drawn anew with replacement.

    NaN for batch sizes that no draw has enough different sequences for.
    """
    draws = np.array([anew[0] for anew in bootstrap_requests(trace, batches, batching, samples, resamples, seed)])
    possible = np.isfinite(draws).any(axis=0)
    ends = np.full((2, len(batches)), np.nan)
    ends[:, possible] = np.nanquantile(draws[:, possible], (0.025, 0.975), axis=0)
    return ends


def bootstrap_requests(
    trace: Trace, batches: Sequence[int], batching: Batching, samples: int, resamples: int, seed: int
) -> Iterator[Floats]:
    """(2, number of batches), `resamples` times: `requests_by_batch`, means over layers, of sequences drawn anew.

    NaN for batch sizes that the sequences drawn, without their copies, are too few for.
    """
    rng = np.random.default_rng(seed)
    for copies in drawn_anew(len(sequence_starts(trace)) - 1, resamples, rng):
        anew = requests_by_batch(trace, batches, batching, samples, int(rng.integers(2**63)), copies)
        yield anew.mean(axis=2)


def drawn_anew(sequences: int, resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """(S,), `resamples` times: how often each of S sequences is drawn in S draws with replacement (bootstrap)."""
    for _ in range(resamples):
        yield np.bincount(rng.integers(sequences, size=sequences), minlength=sequences)


def _weighted_tokens(
    starts: NDArray[np.int64], copies: NDArray[np.int64], samples: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """(samples,): rows drawn uniformly from the sequences, each taken `copies` times."""
    ends = np.cumsum(copies * np.diff(starts))
    drawn = rng.integers(ends[-1], size=samples)
    owner = np.searchsorted(ends, drawn, side="right")
    return starts[owner] + (ends[owner] - 1 - drawn) % np.diff(starts)[owner]


@njit(cache=True)
def _decode_batches(starts, pool, steps, size, rng):
    """(samples, size): rows of token `steps[i]` of different sequences of `pool` in random order, then -1."""
    rows = np.full((len(steps), size), -1)
    candidates = np.empty(len(pool), np.int64)
    used = np.full(len(starts), -1)
    for sample, step in enumerate(steps):
        running = 0
        for sequence in pool:
            if starts[sequence] + step < starts[sequence + 1]:
                candidates[running] = sequence
                running += 1
        filled = drawn = 0
        while filled < size and drawn < running:
            other = rng.integers(drawn, running)
            sequence, candidates[other] = candidates[other], candidates[drawn]
            drawn += 1
            if used[sequence] != sample:
                used[sequence] = sample
                rows[sample, filled] = starts[sequence] + step
                filled += 1
    return rows


@njit(cache=True)
def _staggered_batches(starts, pool, samples, size, rng):
    """(samples, size): a random row of each of different sequences of `pool` in random order, then -1."""
    rows = np.full((samples, size), -1)
    order = pool.copy()
    used = np.full(len(starts), -1)
    for sample in range(samples):
        filled = drawn = 0
        while filled < size and drawn < len(order):
            other = rng.integers(drawn, len(order))
            order[drawn], order[other] = order[other], order[drawn]
            sequence = order[drawn]
            drawn += 1
            if used[sequence] != sample:
                used[sequence] = sample
                rows[sample, filled] = rng.integers(starts[sequence], starts[sequence + 1])
                filled += 1
    return rows


@njit(cache=True)
def _prefill_batches(following, first, size):
    """(samples, size): rows from `first[i]` on for as long as each follows the one before, then -1."""
    rows = np.full((len(first), size), -1)
    for sample, start in enumerate(first):
        row = start
        while row - start < size and row < len(following) and (row == start or following[row]):
            rows[sample, row - start] = row
            row += 1
    return rows


@njit(cache=True)
def _counted(experts, rows, count, sizes):
    """Of the first B of each line of `rows`, for each B of `sizes`, ascending, lines with fewer left out.

    (sizes, L, E + 1): how many lines have so many distinct ids; (sizes, L): ids that a line chose once, summed.
    """
    layers = experts.shape[1]
    lines = np.zeros((len(sizes), layers, count + 1), np.int64)
    alone = np.zeros((len(sizes), layers), np.int64)
    chosen = np.empty((layers, count), np.int32)
    distinct, single = np.empty(layers, np.int64), np.empty(layers, np.int64)
    for line in range(len(rows)):
        chosen[:] = 0
        distinct[:] = 0
        single[:] = 0
        place = 0
        for size in range(len(sizes)):
            while place < sizes[size] and rows[line, place] >= 0:
                _choose(experts, rows[line, place], chosen, distinct, single)
                place += 1
            if place < sizes[size]:
                break
            for layer in range(layers):
                lines[size, layer, distinct[layer]] += 1
                alone[size, layer] += single[layer]
    return lines, alone


@njit(cache=True)
def _choose(experts, row, chosen, distinct, single):
    """Count the choices of a token: by layer and expert, and by layer the experts chosen at all and chosen once."""
    for layer in range(experts.shape[1]):
        new = again = 0
        for rank in range(experts.shape[2]):
            expert = experts[row, layer, rank]
            before = chosen[layer, expert]
            chosen[layer, expert] = before + 1
            new += before == 0
            again += before == 1
        distinct[layer] += new
        single[layer] += new - again


def shuffled(trace: Trace, seed: int) -> Trace:
    """Return the control of a trace: in each layer on its own, its choices permuted over all tokens.

    Keeps every layer's load; destroys persistence, dependence between layers, and on tokens and sequences.
    """
    rng = np.random.default_rng(seed)
    experts = np.empty_like(trace.experts)
    for layer in range(experts.shape[1]):
        experts[:, layer] = trace.experts[rng.permutation(len(trace)), layer]
    return replace(trace, experts=experts)
