"""Simulator of a layer-by-layer decode: expert caches, one copy queue and a device, replayed on routed tokens."""
