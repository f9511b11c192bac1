"""The far factors of the product of law.py's head in closed form, so that no batch is too large to be counted.

The sum of their logarithms is the Euler-Maclaurin formula. With a = (1 - rho) (1 - p) / rho and c = (1 - rho) / rho,
the logarithm of factor i is log(a + i) - log(c + i); its integral is written so that nothing large cancels where rho is
near 0 and c without bounds.
"""

import math

ROUNDING_GUARD = 1e-9
"""Subtracted before rounding experts up: at B=1 a law gives k up to a few ulp, which must not become k + 1."""
MULTIPLIED = 64
"""Factors that are multiplied one by one: from there on the formula's first omitted term is below 1e-15."""
UNCORRELATED = 1e-30
"""Correlation below which no batch that a float can count tells it from 0."""


def rest(share: float, rho: float, batch: int) -> float:
    """Product of the factors from MULTIPLIED to below `batch`, 1 where there are none; `share` and `rho` 0 to 1.

    Plain numbers and calls of math alone, so that Numba compiles it as it is; the time does not grow with the batch.
    """
    count = batch - MULTIPLIED
    if count <= 0:
        return 1.0
    if rho < UNCORRELATED:
        return (1.0 - share) ** count
    c = (1.0 - rho) / rho
    apart, a_first = c * share, c * (1.0 - share) + MULTIPLIED
    first, last, a_last = c + MULTIPLIED, c + batch, a_first + count
    # The logarithms of the first and of the last factor: of their quotients where these may be as small as 0.
    near = 2.0 * apart < first
    at_first = math.log1p(-apart / first) if near else math.log(a_first / first)
    at_last = math.log1p(-apart / last) if near else math.log(a_last / last)
    log = count * at_last + a_first * math.log1p(count * (apart / last) / a_first) - apart * math.log1p(count / first)
    log -= (at_last - at_first) / 2.0
    log += (1.0 / a_last - 1.0 / last - 1.0 / a_first + 1.0 / first) / 12.0
    log -= (a_last**-3 - last**-3 - a_first**-3 + first**-3) / 360.0
    log += (a_last**-5 - last**-5 - a_first**-5 + first**-5) / 1260.0
    return math.exp(log)


def rest_of_both(share: float, rho: float, both: float, batch: int) -> float:
    """Return the same for two experts of popularity `share`, `both` = E/(E - 1) (k - 1)/k: see the head of distinct.py.

    A factor 1 - 2q + both q^2 has real roots, so that their product is that of two single experts.
    """
    spread = math.sqrt(max(0.0, 1.0 - both))
    return rest(min(1.0, share * (1.0 + spread)), rho, batch) * rest(share * (1.0 - spread), rho, batch)
