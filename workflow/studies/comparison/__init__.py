"""Which strategy of serving experts from a cache is the fastest on recorded routing?"""
