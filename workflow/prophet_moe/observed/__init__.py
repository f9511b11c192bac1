"""Observations of others, and what this project predicts for each of them."""
