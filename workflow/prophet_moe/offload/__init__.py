"""Offloading of routed experts: caches of experts on a GPU, and strategies that decide what they hold.

* `policies`: replacement policies alone, as libCacheSim defines them.
* `simulator`: a device, its caches and one copy queue, replayed on routed tokens with a clock.
* `strategies`: what the simulator compares, one file each.
* `demand`: caches on demand as engines have them, of a byte budget, with the ways in which engines serve misses.
* `decode_loop`: what a GPU runs in the measurement `collect prefetch`, and its clock.

Replacement is implemented seven times, because each implementation answers another question. Two look up request by
request; five look up one layer-step at a time, that is all experts that a layer needs at once.

| implementation | looks up | held equal to | by the test |
|---|---|---|---|
| `policies` | request by request | libCacheSim | `tests/peers/test_libcachesim.py` |
| `routing.reuse`, all capacities at once | request by request | `policies` | `tests/unit/offload/test_policies.py` |
| `simulator.engine`, compiled | by layer-step | `simulator.reference` | `tests/unit/offload/test_simulation.py` |
| `simulator.reference`, plain Python | by layer-step | `simulator.engine` | `tests/unit/offload/test_simulation.py` |
| `demand.lookups`, compiled, bytes | by layer-step | `simulator.engine` | `tests/unit/offload/test_demand_times.py` |
| `demand.reference`, plain Python | by layer-step | `demand.lookups` | `tests/unit/offload/test_demand_lookups.py` |
| `decode_loop.decisions`, no clock | by layer-step | `simulator.engine` | `tests/unit/offload/test_decode_loop.py` |

Of single requests without prefetches the engine misses as many as `policies` does
(`tests/unit/offload/test_simulation.py`).
"""
