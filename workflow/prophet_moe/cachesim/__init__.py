"""Expert caches on request streams: what a replacement policy keeps, and what has to be moved."""
