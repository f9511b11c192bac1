"""The loop that `collect prefetch` runs on a GPU: what it decides, and how long that takes by a clock of its own.

It does less than the simulator beside it: a prefetch once begun is made, and how many begin before the next layer
is given, so that no decision depends on timing.
"""
