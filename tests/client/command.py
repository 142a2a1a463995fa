"""Runs the command line as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Done:
    """A finished command."""

    status: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


async def start(*arguments: str, server: str = "", encoder: str = "") -> asyncio.subprocess.Process:
    """Start a command in an environment without settings of its own."""
    environment = {name: value for name, value in os.environ.items() if "LONGSPAN" not in name}
    if server:
        environment["LONGSPAN_SERVER"] = server
    if encoder:
        environment["LONGSPAN_ENCODER"] = encoder
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "longspan.client",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )


async def longspan(
    *arguments: str, server: str = "", encoder: str = "", stdin: bytes = b""
) -> Done:
    """Run a command to its end."""
    process = await start(*arguments, server=server, encoder=encoder)
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())
