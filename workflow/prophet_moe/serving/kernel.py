"""Continuous batching, compiled: every instance runs steps of whole batches; `reference` is the plain form.

Steps of an instance in which nothing joins or leaves are run in one loop, so that a step costs a few numbers and not
one for each sequence. The rules are those that `batching` states.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats, Integers, Flags = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]

ROUND_ROBIN, LEAST_LOADED = 0, 1
"""Ways to spread requests over instances."""
NONE = -1


class Asked(NamedTuple):
    """Requests in the order of their arrival, as arrays."""

    seconds: Floats
    prompts: Integers
    outputs: Integers
    starts: Integers
    """(n + 1,): where the blocks of a prompt begin in `blocks`."""
    blocks: Integers
    """Ids of the full blocks of all prompts, one prompt after another."""


class Rules(NamedTuple):
    """What an instance holds and how it schedules. Cache is counted in tokens."""

    dispatch: int
    capacity: int
    sequences: int
    """Most sequences of a step."""
    tokens: int
    """Most tokens of a step."""
    overhead: int
    """What each sequence holds beside its tokens: its windows and states."""
    longest: int
    """Most tokens of a request, prompt and output."""
    block: int
    """Tokens of a block of a prompt; 0: nothing is shared."""


class Seconds(NamedTuple):
    """Tables of the seconds of a step: see `step_times.StepTimes`."""

    matrices: Floats
    head: Floats
    attention: Floats
    prefill_attention: Floats
    launch: float
    spacing: float


class Requests(NamedTuple):
    """What is known of each request."""

    refused: Flags
    instance: Integers
    admitted: Floats
    """Seconds at which it first ran; NaN: never."""
    first: Floats
    finish: Floats
    generated: Integers
    preempted: Integers
    """Times that its cache was taken away."""
    reused: Integers
    """Tokens of its prompt that were found in the cache."""
    decoded: Integers
    """Steps that decoded a token of it."""
    batched: Floats
    """Sum over these of the sequences that decoded with it."""
    context: Integers
    """Tokens that are cached."""
    left: Integers
    """Tokens that are still to be prefilled."""
    held: Integers
    """Tokens of cache that are its own and no other's."""
    since: Floats
    """Value of its instance's `decoded` when it began to decode."""
    after: Integers
    """The next request of its queue."""


class Instances(NamedTuple):
    """What is known of each instance."""

    clock: Floats
    """End of its last step."""
    first_queued: Integers
    last_queued: Integers
    queued: Integers
    running: Integers
    runs: Integers
    """(instances, sequences): what runs, in the order of admission."""
    ending: Integers
    """Requests that its last step finished."""
    used: Integers
    """Tokens of cache that what runs refers to."""
    most_used: Integers
    mean_used: Floats
    """`used` summed over seconds of steps."""
    busy: Floats
    """Seconds of steps."""
    decoded: Floats
    """Tokens that were decoded."""


class Prefixes(NamedTuple):
    """Blocks of prompts in the cache of each instance, and in which order those were left that nothing refers to."""

    holds: Flags
    """Whether a request refers to a block of its prompt."""
    cached: Flags
    """(instances, ids)."""
    count: Integers
    older: Integers
    newer: Integers
    oldest: Integers
    newest: Integers
    loose: Integers
    """Blocks that nothing refers to."""


class Batches(NamedTuple):
    """Seconds and decoded tokens of steps, by the sequences that decoded, and by all tokens of the step."""

    seconds: Floats
    decoded: Floats
    alone: Floats
    """Decoded tokens of steps without a prompt, by the sequences that decoded."""
    seconds_by_tokens: Floats
    decoded_by_tokens: Floats


@njit(cache=True)
def interpolated(row: Floats, context: float, spacing: float) -> float:
    """Return the value at a context in a row of knots, `spacing` tokens apart; beyond the last knot that knot's."""
    place = context / spacing
    left = int(place)
    if left >= row.shape[0] - 1:
        return row[row.shape[0] - 1]
    return row[left] + (place - left) * (row[left + 1] - row[left])


@njit(cache=True)
def serve(
    asked: Asked, rules: Rules, seconds: Seconds, req: Requests, inst: Instances, pre: Prefixes, out: Batches
) -> None:
    """Serve all requests; what comes of it is written into the last four arguments."""
    chunk = np.zeros(rules.sequences, np.int64)
    turn, requests, instances = 0, asked.seconds.shape[0], inst.clock.shape[0]
    for r in range(requests + 1):
        now, begin, end = np.inf, 0, instances
        if r < requests:
            now, whole = asked.seconds[r], asked.prompts[r] + asked.outputs[r]
            if whole > rules.longest or whole + rules.overhead > rules.capacity:
                req.refused[r] = True
                continue
            if rules.dispatch == ROUND_ROBIN:
                begin = turn % instances
                end = begin + 1
            turn += 1
        i, least = begin, -1
        for each in range(begin, end):
            if inst.clock[each] < now and inst.running[each] + inst.queued[each] > 0:
                _advance(each, now, chunk, asked, rules, seconds, req, inst, pre, out)
            load = inst.running[each] + inst.queued[each] + (inst.ending[each] if inst.clock[each] > now else 0)
            if least < 0 or load < least:
                i, least = each, load
        if r < requests:
            _enqueue(i, r, now, req, inst)


@njit(cache=True)
def _enqueue(i: int, r: int, now: float, req: Requests, inst: Instances) -> None:
    """Put a request at the end of the queue of an instance; one that has nothing to do begins now."""
    req.instance[r] = i
    if inst.running[i] == 0 and inst.queued[i] == 0:
        inst.clock[i] = max(inst.clock[i], now)
    if inst.last_queued[i] == NONE:
        inst.first_queued[i] = r
    else:
        req.after[inst.last_queued[i]] = r
    inst.last_queued[i] = r
    inst.queued[i] += 1


@njit(cache=True, inline="always")
def _advance(
    i: int,
    until: float,
    chunk: Integers,
    asked: Asked,
    rules: Rules,
    seconds: Seconds,
    req: Requests,
    inst: Instances,
    pre: Prefixes,
    out: Batches,
) -> None:
    """Run the steps of an instance that begin before `until`."""
    while inst.clock[i] < until and (inst.running[i] > 0 or inst.queued[i] > 0):
        now = inst.clock[i]
        decoding, cached = 0, 0
        for place in range(inst.running[i]):
            r = inst.runs[i, place]
            if req.left[r] == 0:
                decoding += 1
                cached += req.context[r]
        lost = False
        while inst.used[i] + decoding > rules.capacity:
            r = inst.runs[i, inst.running[i] - 1]
            if req.left[r] == 0:
                decoding -= 1
                cached -= req.context[r]
            _preempt(i, asked, rules, req, inst, pre)
            lost = True
        budget = rules.tokens - decoding
        for place in range(inst.running[i]):
            chunk[place] = min(req.left[inst.runs[i, place]], budget)
            budget -= chunk[place]
        full = lost
        while inst.queued[i] > 0 and not full and inst.running[i] < rules.sequences and budget > 0:
            r = inst.first_queued[i]
            if _admit(i, r, decoding, asked, rules, req, inst, pre):
                if np.isnan(req.admitted[r]):
                    req.admitted[r] = now
                place = inst.running[i]
                inst.runs[i, place] = r
                inst.running[i] += 1
                chunk[place] = min(req.left[r], budget)
                budget -= chunk[place]
            else:
                full = True
        prefilled, sequences, attended = 0, 0, 0.0
        for place in range(inst.running[i]):
            if chunk[place] > 0:
                middle = req.context[inst.runs[i, place]] + 0.5 * chunk[place]
                attended += chunk[place] * interpolated(seconds.prefill_attention, middle, seconds.spacing)
                prefilled += chunk[place]
                sequences += 1
        steps = 1
        if prefilled == 0 and (inst.queued[i] == 0 or inst.running[i] == rules.sequences or (full and not lost)):
            steps = (rules.capacity - inst.used[i]) // decoding
            for place in range(inst.running[i]):
                r = inst.runs[i, place]
                steps = min(steps, asked.outputs[r] - req.generated[r])
        tokens, taken = decoding + prefilled, 0
        fixed = seconds.matrices[tokens] + seconds.head[decoding + sequences]
        while taken < steps and (taken == 0 or now < until):
            if decoding > 0:
                step = fixed + interpolated(seconds.attention[decoding], cached / decoding, seconds.spacing)
            else:
                step = fixed + seconds.launch
            step += attended
            inst.used[i] += decoding
            cached += decoding
            inst.mean_used[i] += step * inst.used[i]
            now += step
            taken += 1
        spent, done = now - inst.clock[i], decoding * taken
        inst.most_used[i] = max(inst.most_used[i], inst.used[i])
        inst.busy[i] += spent
        inst.decoded[i] += done
        inst.clock[i] = now
        out.seconds[decoding] += spent
        out.decoded[decoding] += done
        out.alone[decoding] += done if prefilled == 0 else 0
        out.seconds_by_tokens[tokens] += spent
        out.decoded_by_tokens[tokens] += done
        if pre.loose[i] > 0:
            _make_room(i, rules, inst, pre)
        _end(i, taken, chunk, asked, rules, req, inst, pre)


@njit(cache=True, inline="always")
def _end(
    i: int, taken: int, chunk: Integers, asked: Asked, rules: Rules, req: Requests, inst: Instances, pre: Prefixes
) -> None:
    """Take up what `taken` steps have made; what has all of its tokens leaves."""
    now, kept = inst.clock[i], 0
    inst.ending[i] = 0
    for place in range(inst.running[i]):
        r, emitted = inst.runs[i, place], 0
        if req.left[r] == 0:
            req.context[r] += taken
            req.held[r] += taken
            req.decoded[r] += taken
            emitted = taken
        elif chunk[place] > 0:
            req.left[r] -= chunk[place]
            req.context[r] += chunk[place]
            if req.left[r] == 0:
                emitted = 1
                req.since[r] = inst.decoded[i]
                _register(i, r, asked, rules, req, pre)
                if req.generated[r] == 0:
                    req.first[r] = now
        req.generated[r] += emitted
        if req.generated[r] == asked.outputs[r]:
            req.batched[r] += inst.decoded[i] - req.since[r]
            req.finish[r] = now
            inst.ending[i] += 1
            _release(i, r, asked, rules, req, inst, pre)
        else:
            inst.runs[i, kept] = r
            kept += 1
    inst.running[i] = kept


@njit(cache=True)
def _admit(
    i: int, r: int, decoding: int, asked: Asked, rules: Rules, req: Requests, inst: Instances, pre: Prefixes
) -> bool:
    """Take the first of the queue in if all that it has to prefill finds room; return whether it did."""
    target, begin = asked.prompts[r] + req.generated[r], asked.starts[r]
    found, fresh = 0, 0
    if rules.block > 0:
        most = min(asked.starts[r + 1] - begin, (target - 1) // rules.block)
        while found < most and pre.cached[i, asked.blocks[begin + found]]:
            if pre.count[i, asked.blocks[begin + found]] == 0:
                fresh += rules.block
            found += 1
    hit = found * rules.block
    own = target - hit + rules.overhead
    if inst.used[i] + decoding + own + fresh > rules.capacity:
        return False
    inst.first_queued[i] = req.after[r]
    req.after[r] = NONE
    if inst.first_queued[i] == NONE:
        inst.last_queued[i] = NONE
    inst.queued[i] -= 1
    for place in range(begin, begin + found):
        b = asked.blocks[place]
        if pre.count[i, b] == 0:
            _unlink(i, b, pre)
        pre.count[i, b] += 1
        pre.holds[place] = True
    inst.used[i] += own + fresh
    req.held[r] = own
    req.context[r] = hit
    req.left[r] = target - hit
    req.reused[r] += hit
    _make_room(i, rules, inst, pre)
    return True


@njit(cache=True)
def _preempt(i: int, asked: Asked, rules: Rules, req: Requests, inst: Instances, pre: Prefixes) -> None:
    """Take the cache of the request that came in last, and put it at the head of the queue, to be prefilled again."""
    inst.running[i] -= 1
    r = inst.runs[i, inst.running[i]]
    if req.left[r] == 0:
        req.batched[r] += inst.decoded[i] - req.since[r]
    _release(i, r, asked, rules, req, inst, pre)
    req.preempted[r] += 1
    req.context[r] = 0
    req.left[r] = 0
    req.after[r] = inst.first_queued[i]
    inst.first_queued[i] = r
    if inst.last_queued[i] == NONE:
        inst.last_queued[i] = r
    inst.queued[i] += 1


@njit(cache=True)
def _release(i: int, r: int, asked: Asked, rules: Rules, req: Requests, inst: Instances, pre: Prefixes) -> None:
    """Give up the cache of a request; blocks that nothing else refers to stay until room is needed, the last first."""
    inst.used[i] -= req.held[r]
    req.held[r] = 0
    for place in range(asked.starts[r + 1] - 1, asked.starts[r] - 1, -1):
        if not pre.holds[place]:
            continue
        b = asked.blocks[place]
        pre.holds[place] = False
        pre.count[i, b] -= 1
        if pre.count[i, b] == 0:
            inst.used[i] -= rules.block
            pre.older[i, b] = pre.newest[i]
            pre.newer[i, b] = NONE
            if pre.newest[i] == NONE:
                pre.oldest[i] = b
            else:
                pre.newer[i, pre.newest[i]] = b
            pre.newest[i] = b
            pre.loose[i] += 1


@njit(cache=True)
def _register(i: int, r: int, asked: Asked, rules: Rules, req: Requests, pre: Prefixes) -> None:
    """Make the full blocks of a prefilled prompt available to others; those that are there already stay its own."""
    if rules.block == 0:
        return
    for place in range(asked.starts[r], asked.starts[r + 1]):
        b = asked.blocks[place]
        if not pre.holds[place] and not pre.cached[i, b]:
            pre.cached[i, b] = True
            pre.count[i, b] = 1
            pre.holds[place] = True
            req.held[r] -= rules.block


@njit(cache=True)
def _make_room(i: int, rules: Rules, inst: Instances, pre: Prefixes) -> None:
    """Drop the blocks that nothing has referred to for longest until the cache holds the rest."""
    while inst.used[i] + pre.loose[i] * rules.block > rules.capacity:
        b = pre.oldest[i]
        _unlink(i, b, pre)
        pre.cached[i, b] = False


@njit(cache=True)
def _unlink(i: int, b: int, pre: Prefixes) -> None:
    """Take a block out of those that nothing refers to."""
    before, behind = pre.older[i, b], pre.newer[i, b]
    if before == NONE:
        pre.oldest[i] = behind
    else:
        pre.newer[i, before] = behind
    if behind == NONE:
        pre.newest[i] = before
    else:
        pre.older[i, behind] = before
    pre.loose[i] -= 1
