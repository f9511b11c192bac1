"""Does a simulated decode loop with prefetching take as long as on a measured GPU?"""
