"""How to split the memory of a GPU between slots for experts and the KV cache, before anything runs.

* `curve`: the hit rate that a number of slots gives, with an interval and its origin.
* `situation`: a model on a GPU as the few numbers that a plan follows from.
* `solve`: slots, hit rates, times and contexts of a situation; what does not work, and why.
* `demand`: what arrivals ask of a GPU, the batch that is planned for.
* `advice`: one recommendation with its reasons, beside the decision tree of report 002.
* `engines`: the split as the command line of every engine, in its own unit, and the counter that checks it.
* `explain`: every line of the budget with its formula and its source.
* `pages`: the plan as text, with its chart, and as JSON.
"""
