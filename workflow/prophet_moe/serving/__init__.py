"""Serving: models over several GPUs; arrivals of requests, continuous batching, and the batches that come of it."""
