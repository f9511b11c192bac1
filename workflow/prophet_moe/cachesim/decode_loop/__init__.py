"""The loop that `collect prefetch` runs on a GPU: what it decides, and how long that takes by a clock of its own.

It does less than the simulator beside it: a prefetch once decided on is made, and no decision depends on timing.
"""
