"""Expert caches as engines have them: no prefetch, a budget in bytes, and misses that need not be copied.

* `lookups`: what a cache holds, ask by ask: which request hits, which miss enters. Compiled; `reference` is plain.
* `times`: how long steps take for that: copies on one link, misses computed on the CPU, overheads of the host.
* `recorded`: sessions that an engine recorded with the hits of its own cache.
* `speculation`: steps that verify consecutive tokens of one sequence.
* `page_cache`: storage behind the cache, and the operating system's pages between.

An ask is what one layer needs in one step: ids of distinct experts, layer * E + expert.
"""
