"""Opens the tiers below a pool as the worker's options say."""

from __future__ import annotations

from collections.abc import Sequence

from longspan.blobstore.breaker import Breaker, BreakerLimits
from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.store import BlobStore
from longspan.worker.attention.pool import LayerPages
from longspan.worker.options import WorkerOptions
from longspan.worker.tiers.lower import LowerTiers
from longspan.worker.tiers.mover import Mover
from longspan.worker.tiers.page_tensors import PageTensors
from longspan.worker.tiers.ram import RamTier

MAGIC = b"LSKVPG01"
"""What files hold parts of KV pages, and how: the bytes of their tensors, one after the other."""

SLOW_S = 5.0
"""A disk that takes so long for one part of a page is as good as broken."""


def open_tiers(
    options: WorkerOptions, layers: Sequence[LayerPages], sizes: Sequence[int]
) -> Mover | None:
    """The tiers below a pool; None where there are none.

    Args:
        options: of the worker.
        layers: of the pool.
        sizes: frames of a page for each group of layers.
    """
    if not options.kv_ram_bytes and options.kv_disk is None:
        return None
    tensors = PageTensors(layers, sizes)
    ram = RamTier(options.kv_ram_bytes)
    disk = None
    if options.kv_disk is not None:
        limits = StoreLimits(options.kv_disk_bytes, options.kv_disk_floor, options.kv_disk_share)
        disk = BlobStore(options.kv_disk, limits, magic=MAGIC)
    breaker = Breaker(BreakerLimits(slow_s=SLOW_S))
    return Mover(tensors, LowerTiers(ram, disk, breaker, tensors.identity))
