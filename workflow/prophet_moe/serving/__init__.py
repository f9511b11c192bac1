"""Serving: models over several GPUs, and what arrives at them."""
