"""A real Prometheus that scrapes what a test tells it, on a port and in a folder of its own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

START_S = 30.0
# Short, so that rates over seconds have points and tests need not wait for minutes.
INTERVAL = "250ms"

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class PrometheusProcess:
    """One running Prometheus."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path

    @classmethod
    @contextmanager
    def scraping(cls, folder: Path, target: str, rules: Groups) -> Iterator[Self]:
        """Scrape ``target`` (host:port) as the job longspan and evaluate the rules.

        Skips the test where Prometheus is not installed.
        """
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip("prometheus is not installed: .ci/servers installs it")
        address = f"127.0.0.1:{_free_port()}"
        command = [program, f"--config.file={_configure(folder, target, rules)}"]
        command += [f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}"]
        log = folder / "prometheus.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        running = cls(process, address, log)
        try:
            running.until(running._ready, "it did not start")
            yield running
        finally:
            process.terminate()
            process.wait(30)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector that an expression has now."""
        answer = self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        result = answer["data"]["result"]
        assert isinstance(result, list)
        return result

    def firing(self, name: str) -> list[dict[str, Any]]:
        """The alerts of a name that are firing, with labels and annotations."""
        alerts = self._get("/api/v1/alerts")["data"]["alerts"]
        return [a for a in alerts if a["labels"]["alertname"] == name and a["state"] == "firing"]

    def unhealthy(self) -> dict[str, str]:
        """Rules whose evaluation fails, and why."""
        groups = self._get("/api/v1/rules")["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return {rule["name"]: rule["lastError"] for rule in rules if rule["health"] == "err"}

    def until(self, condition: Callable[[], object], problem: str, wait_s: float = START_S) -> None:
        """Wait until a condition holds.

        Raises:
            AssertionError: it does not in time, or Prometheus ended.
        """
        deadline = time.monotonic() + wait_s
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{problem}\n{self.log.read_text()}"
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
            content = json.load(answer)
        assert content["status"] == "success", content
        assert isinstance(content, dict)
        return content


def _configure(folder: Path, target: str, rules: Groups) -> Path:
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": rules}), "utf-8")
    scrape = {"job_name": "longspan", "static_configs": [{"targets": [target]}]}
    config = {
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [scrape],
    }
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port
