"""``longspan doctor``: what is here, and whether it works."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator

from longspan.client._cli.checks import Finding, Verdict
from longspan.client._cli.checks_machine import machine
from longspan.client._cli.checks_software import software
from longspan.client._config import Timeout
from longspan.client._sync_client import Client

CONNECT_S = 1.0


def diagnose(server: str, *, server_expected: bool, json: bool) -> int:
    """Print every finding; returns 1 when something needed is broken.

    Args:
        server_expected: whether a server that does not answer is a fault.
    """
    verdicts = []
    for finding in _findings(server, server_expected):
        print(_json_line(finding) if json else _line(finding), flush=True)
        verdicts.append(finding.verdict)
    return int(Verdict.BROKEN in verdicts)


def _findings(server: str, server_expected: bool) -> Iterator[Finding]:
    yield from machine()
    yield from software()
    with Client(server, timeout=Timeout(connect=CONNECT_S, idle=2.0)) as client:
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
        }
    )
