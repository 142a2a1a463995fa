"""Makes API keys, which the server knows by a line of its keys file."""

from __future__ import annotations

import json as json_module
import os
from pathlib import Path

import typer

from longspan.server.auth.api_keys import NewKey, new_key
from longspan.server.identity import Tenant, is_tenant

PRIVATE = 0o600


def make(tenant: str, file: Path | None, *, json: bool) -> None:
    """Print a new key, and its line for the keys file or add the line to it.

    Raises:
        BadParameter: there can be no tenant of this name.
        OSError: the file cannot be written.
    """
    if not is_tenant(tenant):
        raise typer.BadParameter(
            "a tenant's name has up to 64 letters, digits, '.', '_' and '-', "
            "and begins with a letter or a digit"
        )
    made = new_key(Tenant(tenant))
    if file is not None:
        _add(file, made)
    if json:
        print(json_module.dumps({"event": "key", "key": made.key, "line": made.line}))
    elif file is not None:
        print(made.key)
    else:
        print(f"key, for the caller:      {made.key}")
        print(f"line, for the keys file:  {made.line}")


def _add(path: Path, made: NewKey) -> None:
    # One write of a whole line: the server may read the file at any time.
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, PRIVATE)
    with open(descriptor, "rb+") as file:
        file.seek(0, os.SEEK_END)
        broken = False
        if file.tell():
            file.seek(-1, os.SEEK_END)
            broken = file.read(1) != b"\n"
        file.write(f"{chr(10) * broken}{made.line}\n".encode())
