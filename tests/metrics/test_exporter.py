"""The port that Prometheus scrapes: off, on, taken, and what exemplars look like there."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import which
from typing import Any

import psutil
import pytest
from opentelemetry import trace

from longspan.server.app import running_server
from longspan.server.config import load_config
from longspan.server.errors import ConfigError
from longspan.server.metrics.exporter import Exporter
from longspan.server.metrics.metrics import Metrics
from longspan.server.metrics.scrape_server import SCRAPERS
from tests.e2e.workers import free_port
from tests.metrics.scrape import fetch, openmetrics, plain
from tests.support.serving import serving

TRACE_ID = 0x0123456789ABCDEF0123456789ABCDEF
ANY = "127.0.0.1:0"


@contextmanager
def exporting(metrics: Metrics) -> Iterator[int]:
    exporter = Exporter.start(ANY, metrics.registry)
    try:
        yield exporter.port
    finally:
        exporter.close()


@contextmanager
def within_a_trace(*, sampled: bool) -> Iterator[None]:
    """As under a server's span; nothing is set for the process."""
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
    context = trace.SpanContext(TRACE_ID, 1, is_remote=False, trace_flags=flags)
    with trace.use_span(trace.NonRecordingSpan(context)):
        yield


def count(metrics: Metrics) -> None:
    metrics.rpcs.started("a.B/C")
    metrics.rpcs.ended("a.B/C", "OK", 0.2)
    metrics.requests.rejected("QUEUE_FULL")
    metrics.requests.began(0.3)
    metrics.requests.completed("ask", 5000, 2.0, 0.02)


def test_exemplars_name_the_trace() -> None:
    metrics = Metrics()
    with within_a_trace(sampled=True):
        count(metrics)
    with exporting(metrics) as port:
        scrape = openmetrics(port)
    marked = {
        sample.name: sample
        for family in scrape.families.values()
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert marked.keys() == {
        "longspan_rpc_started_total",
        "longspan_rpc_duration_seconds_bucket",
        "longspan_requests_rejected_total",
        "longspan_request_duration_seconds_bucket",
        "longspan_time_to_first_token_seconds_bucket",
        "longspan_time_per_output_token_seconds_bucket",
    }
    for sample in marked.values():
        assert sample.exemplar is not None
        assert sample.exemplar.labels == {"trace_id": f"{TRACE_ID:032x}"}
    assert marked["longspan_rpc_duration_seconds_bucket"].labels["le"] == "0.25"


def test_without_a_recorded_trace_there_are_none() -> None:
    metrics = Metrics()
    count(metrics)
    with within_a_trace(sampled=False):
        count(metrics)
    with exporting(metrics) as port:
        assert "trace_id" not in openmetrics(port).text


def test_the_plain_format_has_the_same_values_and_no_exemplars() -> None:
    metrics = Metrics()
    with within_a_trace(sampled=True):
        count(metrics)
    with exporting(metrics) as port:
        text, marked = plain(port), openmetrics(port)
    assert "trace_id" not in text.text
    assert "_created" not in text.text + marked.text
    name = "longspan_request_duration_seconds_count"
    assert text.value(name, length="long") == marked.value(name, length="long") == 1


def test_two_servers_in_a_process_share_nothing() -> None:
    one, other = Metrics(), Metrics()
    count(one)
    with exporting(other) as port:
        assert openmetrics(port).value("longspan_rpc_started_total") == 0


async def test_it_answers_while_the_event_loop_does_not() -> None:
    with exporting(Metrics()) as port:
        # Called on the loop, which stands still meanwhile.
        assert "longspan_build_info" in fetch(port)


def test_scrapers_that_say_nothing_are_cut_and_hold_nobody_up() -> None:
    exporter = Exporter.start(ANY, Metrics().registry, patience_s=0.5)
    try:
        before = threading.active_count()
        with ExitStack() as stack:
            silent = [
                stack.enter_context(socket.create_connection(("127.0.0.1", exporter.port), 20))
                for _ in range(4 * SCRAPERS)
            ]
            for one in silent:
                with suppress(OSError):  # those that are too many
                    one.sendall(b"GET /metrics HTTP/1.0\r\nX-Slow:")
            # A thread for each, and its timer.
            assert threading.active_count() - before <= 2 * SCRAPERS
            for one in silent:
                with suppress(ConnectionResetError):
                    assert one.recv(1) == b""
            # A connection ends a moment before its place is free.
            deadline = time.monotonic() + 10.0
            while threading.active_count() > before:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert "longspan_build_info" in fetch(exporter.port)
    finally:
        exporter.close()


async def test_only_a_server_that_was_told_so_listens_for_scrapes(tmp_path: Path) -> None:
    async with serving(tmp_path, encoder="none", metrics={"listen": ANY}) as running:
        port = running.server.metrics_port
        assert port is not None
        assert _listening() == {running.server.port, port}
        assert "longspan_workers" in await asyncio.to_thread(fetch, port)
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(fetch, port)
    async with serving(tmp_path, encoder="none") as running:
        assert running.server.metrics_port is None
        assert _listening() == {running.server.port}


def _listening() -> set[int]:
    connections = psutil.Process().net_connections(kind="inet")
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("address", ["9090", "host:", "127.0.0.1:99999"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="an address is host:port"):
        Exporter.start(address, Metrics().registry)


async def test_a_taken_port_is_refused_before_anything_loads(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        # There is no such model: whoever looks for it fails otherwise.
        flags = ["--metrics.listen", address, "--listen", ANY, "--model", str(tmp_path / "none")]
        config = load_config([*flags, "--data-dir", str(tmp_path / "data")])
        with pytest.raises(ConfigError, match=address):
            async with running_server(config):
                pass
        with pytest.raises(ConfigError, match=address):
            await asyncio.to_thread(Exporter.start, address, Metrics().registry)


def test_the_address_comes_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSPAN_METRICS__LISTEN", "0.0.0.0:9464")
    assert load_config([]).metrics.listen == "0.0.0.0:9464"


def test_prometheus_itself_reads_values_and_exemplars(tmp_path: Path) -> None:
    """Its own parser is stricter than ours."""
    program = which("prometheus")
    if program is None:
        pytest.skip("no prometheus here")
    metrics = Metrics()
    with exporting(metrics) as port, prometheus(program, tmp_path, port) as asked:
        with within_a_trace(sampled=True):
            count(metrics)
        query = "longspan_request_duration_seconds_count"
        [found] = asked(f"query?query={query}")["result"]
        assert found["metric"]["task"] == "ask"
        assert found["value"][1] == "1"
        marked = asked("query_exemplars?query=longspan_rpc_started_total&start=0&end=9999999999")
        [series] = marked
        assert series["exemplars"][0]["labels"] == {"trace_id": f"{TRACE_ID:032x}"}


@contextmanager
def prometheus(program: str, folder: Path, scraped: int) -> Iterator[Callable[[str], Any]]:
    """A Prometheus that scrapes a port; asks it until it has an answer."""
    config = folder / "prometheus.yml"
    job = {"job_name": "longspan", "static_configs": [{"targets": [f"127.0.0.1:{scraped}"]}]}
    config.write_text(json.dumps({"global": {"scrape_interval": "100ms"}, "scrape_configs": [job]}))
    port = free_port()
    options = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    options += [f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage"]

    def ask(path: str) -> Any:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with suppress(urllib.error.URLError):
                url = f"http://127.0.0.1:{port}/api/v1/{path}"
                with urllib.request.urlopen(url, timeout=5) as response:
                    data = json.load(response)["data"]
                if data and (not isinstance(data, dict) or data["result"]):
                    return data
            time.sleep(0.1)
        raise AssertionError(f"no answer to {path}")

    with subprocess.Popen([program, *options], stderr=subprocess.DEVNULL) as process:
        try:
            yield ask
        finally:
            process.kill()
