"""Checkov finds nothing in the manifests but what they and docs/kubernetes.md justify."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.rendered import APPLIED, render
from tests.support.data import REPOSITORY

OWN = REPOSITORY / ".checkov" / "bin" / "checkov"
PAGE = (REPOSITORY / "docs" / "kubernetes.md").read_text("utf-8")

Found = dict[str, Any]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Its verdict on everything that is applied; skips where it is not installed."""
    program = str(OWN) if OWN.exists() else shutil.which("checkov")
    if program is None:
        pytest.skip("checkov is not installed (.ci/checkov)")
    folder = tmp_path_factory.mktemp("rendered")
    for name in APPLIED:
        path = folder / f"{name.replace('/', '-')}.yaml"
        path.write_text(yaml.safe_dump_all(render(name).objects), "utf-8")
    return run(program, folder)


def run(program: str, folder: Path) -> Found:
    """Check a folder of manifests, without asking anybody on the network."""
    command = [program, "--directory", str(folder), "--framework", "kubernetes"]
    command += ["--output", "json", "--skip-download", "--soft-fail"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["results"]
    assert isinstance(found, dict)
    return found


def test_nothing_is_found(results: Found) -> None:
    assert results["passed_checks"]
    failed = [f"{one['check_id']} {one['resource']}" for one in results["failed_checks"]]
    assert failed == []


def test_what_is_skipped_is_justified(results: Found) -> None:
    documented = set(re.findall(r"CKV2?_K8S_\d+", PAGE))
    skipped = {one["check_id"] for one in results["skipped_checks"]}
    assert skipped == documented
    for one in results["skipped_checks"]:
        assert len(one["check_result"]["suppress_comment"]) > 10, one["resource"]
