"""What a worker tells of its pages below the pool, and of the machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from longspan.blobstore.breaker import Breaker, BreakerLimits
from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.store import BlobStore
from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.attention.layout import layout
from longspan.worker.generation.kv_pool import make_pool
from longspan.worker.gpus import open_gpu
from longspan.worker.kv.chain import PageKey
from longspan.worker.kv.label import Label
from longspan.worker.kv.pages import PageTable
from longspan.worker.models.probe import LayerShape
from longspan.worker.resources import process_resources
from longspan.worker.tiers.lower import LowerTiers
from longspan.worker.tiers.mover import Mover
from longspan.worker.tiers.opening import MAGIC
from longspan.worker.tiers.page_tensors import PageTensors
from longspan.worker.tiers.part import Part
from longspan.worker.tiers.ram import RamTier
from longspan.worker.tiers.usage import KvUsage

PAGE = b"page" * 256
BUDGET = 1 << 20
LABEL = Label("t", "doc_1")


def part(number: int) -> Part:
    return Part(PageKey(bytes((number,)) * 32), 0)


def mover_over(folder: Path, ram_bytes: int, budget_bytes: int = BUDGET) -> Mover:
    """A pool of two pages with RAM and a folder below it."""
    shape = LayerShape(4, 2, 16, 16, latent=False)
    way = layout([[0]])
    pool = make_pool([shape], way, 2, torch.float32, torch.device("cpu"), bounds=False)
    disk = BlobStore(folder, StoreLimits(budget_bytes), magic=MAGIC)
    breaker = Breaker(BreakerLimits(failures=1, pause_s=1000.0))
    return Mover(PageTensors(pool, way.sizes), LowerTiers(RamTier(ram_bytes), disk, breaker, b""))


def told(mover: Mover | None) -> pb.Resources:
    resources = pb.Resources()
    KvUsage(PageTable(2), 1000, mover).tell(resources)
    return resources


def test_what_is_found_in_ram_is_not_looked_for_on_disk(tmp_path: Path) -> None:
    mover = mover_over(tmp_path, ram_bytes=len(PAGE))
    for number in (1, 2):
        assert mover.lower.store(part(number), memoryview(PAGE), LABEL, 1.0)
    for number in (2, 1):
        assert mover.lower.load(part(number), len(PAGE)) is not None
    resources = told(mover)
    ram, disk = resources.ram, resources.disk
    assert (ram.hits, ram.misses, ram.pages, ram.bytes) == (1, 1, 1, len(PAGE))
    assert ram.capacity_bytes == len(PAGE)
    assert (disk.hits, disk.misses, disk.pages, disk.capacity_bytes) == (1, 0, 2, BUDGET)
    assert disk.bytes >= 2 * len(PAGE)
    assert (disk.store_failures, disk.corrupt, disk.breaker_open) == (0, 0, False)
    mover.close()


def test_damage_is_a_miss_and_named_as_damage(tmp_path: Path) -> None:
    mover = mover_over(tmp_path, ram_bytes=0)
    assert mover.lower.store(part(1), memoryview(PAGE), LABEL, 1.0)
    [file] = [one for one in tmp_path.rglob("*") if len(one.stem) == 64]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert mover.lower.load(part(1), len(PAGE)) is None
    resources = told(mover)
    assert (resources.disk.hits, resources.disk.misses, resources.disk.corrupt) == (0, 1, 1)
    assert not resources.HasField("ram")
    mover.close()


def test_what_finds_no_room_and_what_is_not_tried_are_failures(tmp_path: Path) -> None:
    mover = mover_over(tmp_path, ram_bytes=0, budget_bytes=len(PAGE) // 2)
    assert not mover.lower.store(part(1), memoryview(PAGE), LABEL, 1.0)
    assert told(mover).disk.store_failures == 1
    permit = mover.lower.breaker.admit(time.monotonic())
    assert permit is not None
    mover.lower.breaker.failed(permit, time.monotonic())
    assert not mover.lower.store(part(2), memoryview(PAGE), LABEL, 1.0)
    disk = told(mover).disk
    assert (disk.store_failures, disk.breaker_open) == (2, True)
    mover.close()


def test_without_tiers_only_the_pool_is_told_of() -> None:
    resources = told(None)
    assert (resources.page_bytes, resources.found_pages) == (1000, 0)
    assert not resources.HasField("ram")
    assert not resources.HasField("disk")


def test_memory_is_that_of_this_process() -> None:
    before = process_resources().memory_bytes
    held = bytearray(64 << 20)
    held[::4096] = b"1" * len(held[::4096])
    assert process_resources().memory_bytes - before > 32 << 20


def test_a_cpu_is_no_gpu() -> None:
    assert open_gpu(torch.device("cpu")).read() == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_tells_of_its_memory() -> None:
    device = torch.device("cuda")
    held = torch.zeros(1 << 28, dtype=torch.uint8, device=device)
    [gpu] = open_gpu(device).read()
    assert held.nbytes <= gpu.used_bytes <= gpu.total_bytes
    assert 0 <= gpu.utilization <= 1
