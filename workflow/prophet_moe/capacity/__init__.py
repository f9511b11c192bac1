"""Capacity: what fits on a device, and how long a context it holds."""
