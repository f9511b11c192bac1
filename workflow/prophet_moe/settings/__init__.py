"""Typed settings: what all studies share, scenarios, and the looks of figures."""
