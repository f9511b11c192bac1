"""On which hardware does a cache of experts keep a decode step within the claimed slowdown?"""
