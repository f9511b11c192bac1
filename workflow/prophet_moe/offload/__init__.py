"""Offloading of routed experts: replacement policies, strategies, their simulator, and the decode loop run on a GPU."""
