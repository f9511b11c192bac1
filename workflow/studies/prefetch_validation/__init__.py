"""Does the simulated decode loop with prefetches take as long as GPUs were measured to take?"""
