"""What workers tell is added up, over restarts, and never goes back."""

from __future__ import annotations

import signal
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Metric

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.metrics.metrics import Metrics
from longspan.server.pool.lifecycle import Death, DeathCause, RestartReason
from longspan.server.queue.stats import DispatcherStats

PAGE_BYTES = 1000
KINDS = ("prefill", "cached", "decode")
SMALL = st.integers(0, 50)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """The sum of the samples of this name with these labels."""
    families: list[Metric] = list(metrics.registry.collect())
    samples = [sample for family in families for sample in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@dataclass
class Life:
    """One worker process: what it does in each of its heartbeats, from nothing."""

    beats: list[tuple[int, int, int, int]]

    def heartbeats(self) -> list[pb.Heartbeat]:
        resources = pb.Resources(page_bytes=PAGE_BYTES, disk=pb.Tier(capacity_bytes=1))
        heartbeats = []
        for prefill, found, hits, corrupt in self.beats:
            resources.found_pages += found
            resources.disk.hits += hits
            resources.disk.corrupt += corrupt
            computed = pb.Computed(prefill_tokens=prefill, step_tokens=[prefill])
            heartbeats.append(pb.Heartbeat(resources=resources, computed=computed, total_pages=1))
        return heartbeats


BEATS = st.lists(st.tuples(SMALL, SMALL, SMALL, SMALL), max_size=5)


@settings(deadline=None, max_examples=30)
@given(st.lists(BEATS, max_size=4))
def test_counts_of_processes_one_after_the_other_are_those_of_all(
    lives: list[list[tuple[int, int, int, int]]],
) -> None:
    metrics, sums = Metrics(), [0, 0, 0, 0]
    for beats in lives:
        with metrics.decoder.meter() as meter:
            for beat, heartbeat in zip(beats, Life(beats).heartbeats(), strict=True):
                meter.heard(heartbeat)
                sums = [total + more for total, more in zip(sums, beat, strict=True)]
            lookups = "longspan_kv_lookups_total"
            assert [
                value(metrics, "longspan_tokens_total", kind="prefill"),
                value(metrics, lookups, tier="pool", result="hit"),
                value(metrics, lookups, tier="disk", result="hit"),
                value(metrics, "longspan_kv_corrupt_total"),
            ] == sums
    steps = sum(len(beats) for beats in lives)
    assert value(metrics, "longspan_steps_total", role="decoder") == steps
    assert value(metrics, "longspan_batch_tokens_sum") == sums[0]


def test_two_workers_are_summed_but_for_the_disk_that_they_share() -> None:
    metrics = Metrics()
    host = pb.Tier(pages=4, bytes=400, capacity_bytes=600, hits=5, misses=2)
    ram = pb.Tier(pages=3, bytes=300, capacity_bytes=500)
    disk = pb.Tier(pages=7, bytes=700, capacity_bytes=900, breaker_open=True)
    resources = pb.Resources(memory_bytes=10, page_bytes=PAGE_BYTES, host=host, ram=ram, disk=disk)
    heartbeat = pb.Heartbeat(used_pages=2, cached_pages=3, total_pages=9, resources=resources)
    with metrics.decoder.meter() as one, metrics.decoder.meter() as other:
        for meter in (one, other):
            meter.heard(heartbeat)
        metrics.decoder.sample(stats(ready=2))
        pages = "longspan_kv_pages"
        states = [value(metrics, pages, tier="pool", state=s) for s in ("used", "cached", "free")]
        assert states == [4, 6, 8]
        assert value(metrics, pages, tier="ram", state="cached") == 6
        assert value(metrics, pages, tier="disk", state="cached") == 7
        assert value(metrics, pages, tier="host", state="cached") == 8
        slots = "longspan_kv_slot_lookups_total"
        assert [value(metrics, slots, result=r) for r in ("hit", "miss")] == [10, 4]
        assert value(metrics, "longspan_kv_capacity_bytes", tier="host") == 1200
        assert value(metrics, "longspan_kv_bytes", tier="pool") == 10 * PAGE_BYTES
        assert value(metrics, "longspan_kv_capacity_bytes", tier="ram") == 1000
        assert value(metrics, "longspan_kv_capacity_bytes", tier="disk") == 900
        assert value(metrics, "longspan_kv_breaker_open", tier="disk") == 1
        assert value(metrics, "longspan_worker_memory_bytes", role="decoder") == 20
    metrics.decoder.sample(stats(down=2))
    assert value(metrics, pages, tier="pool") == value(metrics, pages, tier="ram") == 0
    # The files are there.
    assert value(metrics, pages, tier="disk") == 7
    assert value(metrics, "longspan_workers", role="decoder", state="down") == 2
    assert value(metrics, "longspan_workers", role="decoder", state="ready") == 0


def test_a_gpu_shows_what_its_workers_tell() -> None:
    metrics = Metrics()
    name = "longspan_gpu_memory_used_bytes"
    with metrics.encoder.meter() as meter:
        metrics.encoder.sample(stats(ready=1))
        assert value(metrics, name) == 0
        told = [pb.Gpu(index="3", used_bytes=5, total_bytes=8, utilization=0.5)]
        told += [pb.Gpu(index="4", used_bytes=1, total_bytes=8)]
        meter.heard(pb.Heartbeat(resources=pb.Resources(gpus=told)))
        metrics.encoder.sample(stats(ready=1))
    assert (value(metrics, name, gpu="3"), value(metrics, name, gpu="4")) == (5, 1)
    assert value(metrics, "longspan_gpu_memory_total_bytes", gpu="3") == 8
    assert value(metrics, "longspan_gpu_utilization_ratio") == 0.5


def test_a_gpu_goes_with_the_last_worker_that_told_of_it() -> None:
    metrics = Metrics()
    name = "longspan_gpu_memory_used_bytes"
    told = pb.Heartbeat(
        resources=pb.Resources(gpus=[pb.Gpu(index="3", used_bytes=5, total_bytes=8)])
    )
    with metrics.encoder.meter() as meter:
        meter.heard(told)
        metrics.encoder.sample(stats(ready=1))
        with metrics.decoder.meter() as other:
            other.heard(told)
            metrics.decoder.sample(stats(ready=1))
        metrics.decoder.sample(stats(down=1))
        assert value(metrics, name, gpu="3") == 5, "the encoder is still there"
    metrics.encoder.sample(stats(down=1))
    assert value(metrics, name) == 0
    assert value(metrics, "longspan_gpu_memory_total_bytes") == 0


def test_an_encoder_has_no_pages() -> None:
    metrics = Metrics()
    with metrics.encoder.meter() as meter:
        computed = pb.Computed(step_tokens=[30, 40], waits_s=[0.002, 0.3, -0.1])
        meter.heard(pb.Heartbeat(resources=pb.Resources(memory_bytes=1), computed=computed))
        metrics.encoder.sample(stats(ready=1))
    assert value(metrics, "longspan_batch_tokens_sum", role="encoder") == 70
    assert value(metrics, "longspan_batch_wait_seconds_sum") == pytest.approx(0.302)
    names = [sample.name for family in metrics.registry.collect() for sample in family.samples]
    assert not [name for name in names if name.startswith("longspan_kv_") and "corrupt" not in name]


def stats(**workers: int) -> DispatcherStats:
    return DispatcherStats(
        queued_jobs=0, queued_tokens=0, in_flight=(), jobs=0, waiting=0, restarts=0, workers=workers
    )


@pytest.mark.parametrize(
    ("cause", "status", "was_ready", "reason"),
    [
        (DeathCause.EXITED, 1, True, RestartReason.EXIT),
        (DeathCause.STREAM_ENDED, 0, True, RestartReason.EXIT),
        (DeathCause.EXITED, -signal.SIGKILL, True, RestartReason.SIGNAL),
        (DeathCause.STREAM_ENDED, -signal.SIGSEGV, True, RestartReason.SIGNAL),
        (DeathCause.SILENT, -signal.SIGKILL, True, RestartReason.HANG),
        (DeathCause.HUNG, -signal.SIGKILL, True, RestartReason.HANG),
        (DeathCause.START_TIMEOUT, -signal.SIGKILL, False, RestartReason.START_FAILED),
        (DeathCause.EXITED, 4, False, RestartReason.START_FAILED),
    ],
)
def test_why_a_worker_was_replaced(
    cause: DeathCause, status: int, was_ready: bool, reason: RestartReason
) -> None:
    assert Death(cause, status, "", was_ready).restart_reason is reason
