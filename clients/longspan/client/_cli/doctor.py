"""``longspan doctor``: what this machine can do, what is here, and whether it works."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from pathlib import Path

from longspan.client._cli.checks import Finding, Verdict
from longspan.client._cli.checks_accelerator import accelerator
from longspan.client._cli.checks_capacity import capacity, devices
from longspan.client._cli.checks_machine import machine
from longspan.client._cli.checks_software import software
from longspan.client._cli.gpus import gpus_by_tool
from longspan.client._cli.probing import run_probe
from longspan.client._config import Timeout
from longspan.client._credentials import Tls
from longspan.client._sync_client import Client

CONNECT_S = 1.0


def diagnose(
    server: str, tls: Tls | bool, *, server_expected: bool, model: Path | None, json: bool
) -> int:
    """Print every finding; returns 1 when something needed is broken.

    Args:
        server_expected: whether a server that does not answer is a fault.
        model: a folder of a decoder to say the capacity for; None is a few known ones.
    """
    verdicts = []
    for finding in _findings(server, tls, server_expected, model):
        print(_json_line(finding) if json else _line(finding), flush=True)
        verdicts.append(finding.verdict)
    return int(Verdict.BROKEN in verdicts)


def _findings(
    server: str, tls: Tls | bool, server_expected: bool, model: Path | None
) -> Iterator[Finding]:
    yield from machine()
    probe = run_probe()
    # torch knows which it may use; without torch the driver's tool knows what is there.
    gpus = probe.gpus or gpus_by_tool()
    yield from accelerator(probe, gpus)
    yield from software()
    yield from capacity(model, devices(gpus))
    with Client(server, timeout=Timeout(connect=CONNECT_S, idle=2.0), tls=tls) as client:
        if client.health():
            yield Finding("server", Verdict.OK, f"{server} serves")
        else:
            verdict = Verdict.BROKEN if server_expected else Verdict.ABSENT
            yield Finding("server", verdict, f"{server} does not serve")


def _line(finding: Finding) -> str:
    return f"{finding.verdict.value:<7} {finding.name:<18} {finding.detail}"


def _json_line(finding: Finding) -> str:
    return json_module.dumps(
        {
            "event": "check",
            "name": finding.name,
            "verdict": finding.verdict.value,
            "detail": finding.detail,
            **finding.facts,
        }
    )
