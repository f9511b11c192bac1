"""Byte units. Inside the code memory is counted in bytes; a name or a column says when it is not."""

KB, MB, GB = 10**3, 10**6, 10**9
MIB, GIB = 2**20, 2**30
