"""Does the memory model predict what was measured on GPUs?"""
