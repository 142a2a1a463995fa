"""A decoder's spans leave it before it stops, and show what came back from disk."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.collector import Collector, Received, collecting
from tests.worker.decoding import decoding, starting, story_tokens, stretched_stories
from tests.worker.harness import Worker

TOKENS = 3_200
STOP_S = 20
KV_BYTES = 24 << 20
TEXT = "".join(f" Tom saw {n} birds and {n * 3 % 41} fish at the lake." for n in range(800))
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACE = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def _stop(worker: Worker) -> None:
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(STOP_S) == 0, worker.errors()


async def _answered(model: Path, disk: Path, collector: Collector, tokens: Sequence[int]) -> None:
    """Start a decoder, have it answer, stop it at once."""
    tiers = ("--kv-disk", str(disk), "--kv-disk-bytes", str(256 << 20), "--kv-disk-floor", "0")
    tracing = ("--tracing-endpoint", collector.endpoint)
    with starting(model, *tiers, *tracing, kv_bytes=KV_BYTES) as worker:
        worker.wait_ready()
        async with decoding(worker, stores=True) as sequences:
            await sequences.answer(tokens, max_tokens=4, subject="doc_1", trace=TRACE)
            # Nobody traces this one.
            await sequences.answer(tokens[:300], max_tokens=2)
        _stop(worker)


def _by_name(spans: Sequence[Received]) -> dict[str, Received]:
    assert {(span.trace_id, span.parent_id) for span in spans} == {(TRACE_ID, PARENT_ID)}
    return {span.name: span for span in spans}


async def test_pages_from_disk_have_a_span(collector: Collector, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    model = stretched_stories(tmp_path / "model", context_tokens=TOKENS + 1_000)
    tokens = story_tokens(TEXT)[:TOKENS]
    await _answered(model, tmp_path / "kv", collector, tokens)
    first = _by_name(collector.spans)
    assert first.keys() == {"prefill", "decode"}
    assert first["prefill"].attributes["longspan.kv.cached_tokens"] == 0
    collector.spans.clear()
    await _answered(model, tmp_path / "kv", collector, tokens)
    second = _by_name(collector.spans)
    assert second.keys() == {"restore KV pages", "prefill", "decode"}
    restore, prefill = second["restore KV pages"], second["prefill"]
    assert restore.attributes["longspan.kv.pages"] > 0
    assert restore.start_ns < prefill.end_ns
    assert prefill.attributes["longspan.kv.cached_tokens"] > 0


def test_a_worker_without_tracing_does_without_opentelemetry() -> None:
    code = (
        "import sys\n"
        "import longspan.worker.process, longspan.worker.generation.workload\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
