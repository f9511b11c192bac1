"""What arrivals ask of a GPU, as a plan takes it up: the batch that is planned for, and what the requests wait."""

from collections.abc import Iterator
from dataclasses import dataclass

KEPT_SHARE = 0.95
"""Share of the decoded tokens whose steps have at most as many sequences as are planned for."""


@dataclass(frozen=True)
class Demand:
    """Arrivals that were served, and what came of it."""

    arrivals: str
    """What was served, in words."""
    served_with: str
    """Where the experts were, and whose scheduler took the requests up, in words."""
    instances: int
    rate: float
    """Requests per second, of all instances."""
    batch: int
    """Sequences that the steps of KEPT_SHARE of the decoded tokens have at most: what is planned for."""
    batch_median: int
    """The same for half of the decoded tokens."""
    request_tokens: tuple[int, int]
    """Tokens of a request, prompt and output: median and 95th percentile."""
    first_token_seconds: tuple[float, float]
    """From arrival to first token: median and 95th percentile."""
    token_seconds: tuple[float, float] | None
    """Per further token: median and 95th percentile; None where no request has one."""
    first_token_limit: float
    """Seconds that instances keep up with."""
    kv_mean_share: float
    """Share of the KV pool that running sequences use, mean over time."""
    kv_most_share: float
    busy_share: float
    refused_share: float
    """Share of the requests that are longer than the native context or the pool."""

    @property
    def keeps_up(self) -> bool:
        """Return whether 95 % of the requests get their first token within the limit."""
        return self.first_token_seconds[1] <= self.first_token_limit


def sentences(found: Demand) -> Iterator[str]:
    """Yield what was served, the batch that is planned for, and what the requests wait."""
    several = "instance" if found.instances == 1 else "instances"
    yield f"Arrivals: {found.arrivals}, {found.rate:.3g} requests/s, {found.instances:,} {several}, {found.served_with}"
    yield (
        f"  planned for a batch of {found.batch:,}: the steps of {KEPT_SHARE:.0%} of the decoded tokens have at most "
        f"so many sequences, those of half of them {found.batch_median:,}"
    )
    first, later = _pair(found.first_token_seconds, "s"), found.token_seconds
    paces = "" if later is None else f", {_pair(tuple(1e3 * each for each in later), 'ms')} a further token"
    pool = f"{found.kv_mean_share:.1%} of the KV pool in use in the mean, {found.kv_most_share:.1%} at most"
    yield f"  first token after {first}{paces}; {pool}; busy {found.busy_share:.0%} of the time"
    middle, most = found.request_tokens
    refused = f"; {found.refused_share:.1%} are too long and refused" if found.refused_share else ""
    yield f"  a request has {middle:,} tokens (95 %: {most:,}){refused}"
    if not found.keeps_up:
        limit = f"{found.first_token_limit:g} s"
        yield f"  it does not keep up: more than 5 % of the requests wait longer than {limit}. Give more --instances."


def _pair(ends: tuple[float, ...], unit: str) -> str:
    return f"{ends[0]:,.3g} {unit} (95 %: {ends[1]:,.3g})"
