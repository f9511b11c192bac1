"""Prophet KV-extension artifact: memory accounting and capacity of mixture-of-experts models.

The library holds pure functions; it knows nothing of Snakemake, notebooks or the layout of the repository.
"""
