"""Rounding that the reference and the sweep share."""

ROUNDING_GUARD = 1e-9
"""Subtracted before rounding experts up: at B=1 a law gives k up to a few ulp, which must not become k + 1."""
