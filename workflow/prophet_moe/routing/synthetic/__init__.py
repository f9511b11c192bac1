"""Synthetic routing traces, seeded, with the statistics of a real trace or the hit curve of a real engine.

`generate` draws a trace from `Parameters`. `fit` finds these layer by layer from a trace, `fit_curve` finds a few
numbers that hold for all layers from hit rates of an expert cache, for models of which no trace was published.
"""

from prophet_moe.routing.synthetic.curve_fit import Chains, Scalars, Setting, fit_curve, hit_curve, rates_at
from prophet_moe.routing.synthetic.generator import Parameters, generate, partners
from prophet_moe.routing.synthetic.trace_fit import Moments, Sample, fit, moments

__all__ = [
    "Chains",
    "Moments",
    "Parameters",
    "Sample",
    "Scalars",
    "Setting",
    "fit",
    "fit_curve",
    "generate",
    "hit_curve",
    "moments",
    "partners",
    "rates_at",
]
