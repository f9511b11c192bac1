"""Serving: arrivals of requests, continuous batching on one instance or several, and the batches that come of it."""
