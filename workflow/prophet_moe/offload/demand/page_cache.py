"""Storage behind an expert cache, and between them the pages that the operating system keeps of the file.

The pages hold what was read last, whatever it was: experts that missed the cache, and the mapped weights that every
step reads layer by layer. What the cache holds and the pages hold is kept twice. So of a fixed memory a larger cache
leaves fewer pages: the best size is between, and where the pages no longer hold the mapped weights, each step reads
them from storage again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.offload.demand.lookups import Asks, ByteCache, Integers, Lookups, look_up
from prophet_moe.offload.demand.times import places_of
from prophet_moe.offload.simulator.batching import LayerAccesses


@dataclass(frozen=True)
class Storage:
    """What lies behind the cache."""

    page_bytes: int
    """Bytes that the operating system keeps of the file in memory."""
    memory_bytes_per_second: float
    """Rate at which an expert is copied from pages to the cache."""
    storage_bytes_per_second: float
    """Rate at which storage is read."""
    mapped_bytes: Integers | None = None
    """(L,): bytes of other weights of each layer that are read through the pages in every step; None for none."""

    def __post_init__(self) -> None:
        """Refuse impossible sizes and rates with a UserError."""
        if self.page_bytes < 0:
            raise UserError("page cache", f"got {self.page_bytes} bytes, expected at least 0", "Correct it.")
        if min(self.memory_bytes_per_second, self.storage_bytes_per_second) <= 0:
            raise UserError("storage", "got a rate of 0 or less, expected bytes a second", "Correct it.")


@dataclass(frozen=True)
class Reads:
    """What a run reads from pages and from storage."""

    request_seconds: NDArray[np.float64]
    """(requests,): seconds that the bytes of a request that misses take; 0 for one that hits."""
    mapped_seconds: NDArray[np.float64]
    """(T L,): seconds that a layer waits for mapped weights that are in no page."""
    storage_bytes: int
    """Bytes that were read from storage."""
    page_hit_rate: float
    """Share of the experts that missed the cache which pages held; 0 if none missed."""


def reads(accesses: LayerAccesses, found: Lookups, bytes_of: Integers, storage: Storage, layers: int) -> Reads:
    """Return what pages and storage serve of the requests that miss, layer by layer with the mapped weights.

    `bytes_of` (N,) are the bytes of each expert, by id.
    """
    count, places = len(bytes_of), len(accesses.of_layer) - 1
    mapped = np.zeros(layers, np.int64) if storage.mapped_bytes is None else np.asarray(storage.mapped_bytes, np.int64)
    missed = np.flatnonzero(~found.hits)
    at = places_of(accesses)[missed]
    # A layer reads its mapped weights, then its missing experts: one ask of the pages after another.
    reads_mapped = np.flatnonzero(mapped[np.arange(places) % layers] > 0)
    order = np.argsort(np.concatenate([2 * reads_mapped, 2 * at + 1]), kind="stable")
    ids = np.concatenate([count + reads_mapped % layers, accesses.ids[missed].astype(np.int64)])[order]
    sizes = np.concatenate([bytes_of, np.maximum(mapped, 1)])
    pages = ByteCache(sizes, np.zeros(len(sizes), np.int64), np.array([storage.page_bytes]))
    held = look_up(Asks(np.arange(len(ids) + 1), ids), pages).hits
    back = np.empty(len(ids), bool)
    back[order] = held
    of_mapped, of_experts = back[: len(reads_mapped)], back[len(reads_mapped) :]
    read = sizes[accesses.ids[missed].astype(np.int64)]
    request_seconds = np.zeros(len(accesses.ids))
    rate = np.where(of_experts, storage.memory_bytes_per_second, storage.storage_bytes_per_second)
    request_seconds[missed] = read / rate
    mapped_seconds = np.zeros(places)
    unmapped = reads_mapped[~of_mapped]
    mapped_seconds[unmapped] = mapped[unmapped % layers] / storage.storage_bytes_per_second
    from_storage = int(read[~of_experts].sum() + mapped[unmapped % layers].sum())
    return Reads(request_seconds, mapped_seconds, from_storage, float(of_experts.mean()) if len(missed) else 0.0)
