"""Where a cache of experts pays, in closed form: slowdown of a decode step from three ratios, and what it needs.

A step with every expert resident takes T. Reading its routed experts from device memory takes the share f of T: where
all of T is reads, f is their share of the bytes. The link copies at the ratio rho of the speed at which memory is read,
for a copy of the size of one expert. Of the experts that the step needs, the share m is missing, whose copies take
m f T / rho. Then the slowdown, the time of the step over T, is

* on demand, where each copy is waited for:                           1 + f m / rho
* prefetched, all copies behind all other work, whatever foretells:   max(1, f m / rho), a bound
* in place, where missing experts are read over the link, not copied: 1 - f m + f m / rho

No predictor is in the first, and any predictor lies between the first two: at equal bytes the second is at most twice
as fast. A limit s of the slowdown therefore allows the miss shares

* on demand:   (s - 1) rho / f
* prefetched:  s rho / f
* in place:    (s - 1) / (f (1 / rho - 1)); all where rho is 1

so that f and rho alone say which hit rate a machine needs, and prefetching allows s / (s - 1) times as many misses.
The format of the weights changes the bytes in memory and on the link alike. It is in f as far as parts of the step keep
their time, and in rho as far as a copy has an overhead.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prophet_moe.catalog.link import LinkSpec
from prophet_moe.errors import UserError
from prophet_moe.routing.reuse import ask_hits
from prophet_moe.routing.synthetic import Chains, Scalars
from prophet_moe.routing.synthetic.curve_fit import chain_choices
from prophet_moe.routing.trace import Router
from prophet_moe.units import GB

Floats = NDArray[np.float64]
Way = Literal["on_demand", "prefetched", "in_place"]
"""How a step comes by the experts that are missing."""


def link_ratio(expert_bytes: float, hbm_gb_per_s: float, link_gb_per_s: float, link: LinkSpec) -> float:
    """Return rho: the seconds to read one expert from device memory over those to copy it from the host."""
    return expert_bytes / (hbm_gb_per_s * GB) / link.seconds_over(link_gb_per_s, expert_bytes)


def expert_share(expert_bytes: float, experts_read: float, hbm_gb_per_s: float, step_seconds: float) -> float:
    """Return f: the seconds to read the routed experts of a step from device memory, over those of the whole step."""
    return expert_bytes * experts_read / (hbm_gb_per_s * GB) / step_seconds


def slowdown(miss_share: ArrayLike, share: ArrayLike, ratio: ArrayLike, way: Way = "on_demand") -> Floats:
    """Return the time of a step over that with every expert resident, by broadcasting.

    Parameters
    ----------
    miss_share : array_like
        m, of the experts that a step needs, those that are not resident; 0 to 1.
    share : array_like
        f, reading the step's routed experts as a share of the time of the step; 0 to 1.
    ratio : array_like
        rho, speed of the link over that of device memory; above 0.
    way : {"on_demand", "prefetched", "in_place"}
        How the step comes by missing experts.

    Raises
    ------
    UserError
        Where a number is outside of its range.
    """
    m, f, rho = (np.asarray(value, float) for value in (miss_share, share, ratio))
    _check(share=f, ratio=rho, miss_share=m)
    copying = f * m / rho
    match _known(way):
        case "on_demand":
            return 1 + copying
        case "prefetched":
            return np.maximum(1.0, copying)
        case _:
            return 1 - f * m + copying


def misses_allowed(limit: float, share: ArrayLike, ratio: ArrayLike, way: Way = "on_demand") -> Floats:
    """Return the largest miss share, at most 1, that keeps a step within `limit` times its time, by broadcasting.

    `share` and `ratio` are those of `slowdown`. A limit below 1 is a UserError, as no step gets faster by missing.
    """
    f, rho = (np.asarray(value, float) for value in (share, ratio))
    _check(share=f, ratio=rho)
    if not 1 <= limit < np.inf:
        raise UserError("slowdown limit", f"got {limit}, expected at least 1", "Correct it.")
    with np.errstate(divide="ignore", invalid="ignore"):
        match _known(way):
            case "on_demand":
                allowed = (limit - 1) * rho / f
            case "prefetched":
                allowed = limit * rho / f
            case _:
                # A link as fast as memory costs nothing.
                allowed = np.where(rho >= 1, np.inf, (limit - 1) / (f * (1 / rho - 1)))
    return np.minimum(1.0, np.where(f > 0, allowed, np.inf))


def hit_rate_needed(limit: float, share: ArrayLike, ratio: ArrayLike, way: Way = "on_demand") -> Floats:
    """Return the least share of needed experts that must be resident for a slowdown of at most `limit`."""
    return 1 - misses_allowed(limit, share, ratio, way)


def filled_hit_curve(scalars: Scalars, router: Router, tokens: int, seed: int, chains: Chains) -> Floats:
    """(E + 1,): hit rate of a per-layer LRU cache of 0, 1, ... E experts that holds the most popular ones at first.

    Generated decode traces of one sequence at a time, of which `tokens` are counted. Each token's experts are looked up
    together, as the simulator does. With every expert resident nothing misses.
    """
    choices = chain_choices(scalars, router, tokens, seed, chains)
    experts, top_k = router.experts, router.top_k
    # The generator numbers experts by falling popularity: asked for in rising order, the most popular are in front.
    ends = np.arange(top_k, experts + top_k, top_k)[::-1]
    ends = np.minimum(ends, experts)
    filling = np.array([np.arange(end - 1, end - 1 - top_k, -1) for end in ends], choices.dtype)
    asks = np.concatenate([np.broadcast_to(filling, (len(choices), *filling.shape)), choices], axis=1)
    hits = ask_hits(np.ascontiguousarray(asks), experts, uncounted=len(filling))
    return np.concatenate([[0.0], hits / choices.size])


def fewest_slots(curve: Floats, hit_rate: float, least: int = 1) -> int:
    """Return the fewest slots, at least `least` and at most E, at which a curve (E + 1,) reaches a hit rate.

    A curve that rounding keeps below a hit rate of 1 reaches it with all of its slots.
    """
    reached = np.flatnonzero(curve >= hit_rate)
    return max(least, int(reached[0])) if reached.size else len(curve) - 1


def _known(way: str) -> str:
    if way not in get_args(Way):
        raise UserError("way", f"got {way!r}, expected one of {', '.join(get_args(Way))}", "Correct it.")
    return way


def _check(share: Floats, ratio: Floats, miss_share: Floats | None = None) -> None:
    ranges = {"miss_share": (miss_share, "0 to 1"), "share": (share, "0 to 1"), "ratio": (ratio, "above 0")}
    for name, (values, expected) in ranges.items():
        if values is None:
            continue
        right = values > 0 if name == "ratio" else (values >= 0) & (values <= 1 + 1e-9)
        if not np.all(right):
            problem = f"got {np.ravel(values[~right])[0] if values.ndim else values}, expected {expected}"
            raise UserError(f"break-even: {name}", problem, "Correct it.")
