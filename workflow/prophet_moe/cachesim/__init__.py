"""Caches: what part of the expert activations a cache of experts serves."""
