"""A server that cannot start says why in its last line and exits with status 2."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from longspan.server.encoders import tokenizer_path
from longspan.server.errors import ConfigError
from longspan.server.store.library import Library
from tests.support.process import ServerProcess
from tests.worker.models import skip_without_embedded

EXIT_CONFIG = 2
SOON_S = 20.0


def last_line(*flags: str, **variables: str) -> str:
    """Start a server that must fail; the last line of what it says."""
    ended = subprocess.run(
        [sys.executable, "-m", "longspan.server", *flags],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=SOON_S,
        check=False,
    )
    assert ended.returncode == EXIT_CONFIG, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    line = ended.stderr.rstrip("\n").split("\n")[-1]
    assert line.startswith("longspan serve: "), ended.stderr
    return line


def model_folder(folder: Path) -> Path:
    """A copy of the embedded model."""
    skip_without_embedded()
    return Path(shutil.copytree(tokenizer_path("embedded").parent, folder / "model"))


def test_an_unknown_key_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "longspan.toml").write_text("listne = 'x'\n")
    assert "listne: unknown key" in last_line("--config", str(tmp_path / "longspan.toml"))


def test_an_unknown_variable_is_named() -> None:
    assert "LONGSPAN_LISTNE" in last_line(LONGSPAN_LISTNE="x")


def test_an_unknown_flag_is_named() -> None:
    assert "--listne" in last_line("--listne", "x")


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (None, "does not exist"),
        ("tokenizer.json", "has no tokenizer.json"),
        ("model.safetensors", "has no model.safetensors"),
    ],
)
def test_a_missing_model_file_is_named(tmp_path: Path, missing: str | None, named: str) -> None:
    folder = tmp_path / "absent"
    if missing is not None:
        folder = model_folder(tmp_path)
        (folder / missing).unlink()
    line = last_line("--encoder", str(folder), "--data-dir", str(tmp_path / "data"))
    assert named in line
    assert str(folder) in line


def test_damaged_weights_are_named_with_both_digests(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    expected = hashlib.sha256(content).hexdigest()
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    (folder / "model.safetensors.sha256").write_text(f"{expected}  model.safetensors\n")
    line = last_line("--encoder", str(folder), "--data-dir", str(tmp_path / "data"))
    assert "checksum mismatch" in line
    assert expected in line
    assert hashlib.sha256(content).hexdigest() in line


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        flags = ("--encoder", "none", "--data-dir", str(tmp_path / "data"))
        line = last_line("--listen", address, *flags)
    assert address in line
    assert "in use" in line


@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1:99999", "127.0.0.1:", ":7", "localhost:x", ""]
)
def test_a_malformed_address_is_named(tmp_path: Path, address: str) -> None:
    flags = ("--encoder", "none", "--data-dir", str(tmp_path / "data"))
    line = last_line("--listen", address, *flags)
    assert f"cannot listen on {address!r}" in line


def test_a_folder_that_another_server_uses_is_named(tmp_path: Path) -> None:
    with ServerProcess.running(tmp_path, "--encoder", "none"):
        line = last_line("--encoder", "none", "--data-dir", str(tmp_path / "data"))
    assert "in use by another server" in line
    assert str(tmp_path / "data") in line


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_data_directory_that_is_a_file_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / below
    line = last_line("--encoder", "none", "--data-dir", str(path))
    assert f"data_dir {path} cannot be used" in line


def test_a_data_directory_that_cannot_be_written_is_named() -> None:
    line = last_line("--encoder", "none", "--data-dir", "/proc/longspan")
    assert "data_dir /proc/longspan cannot be used" in line


async def test_a_catalog_that_is_no_database_is_named_and_the_folder_is_let_go(
    tmp_path: Path,
) -> None:
    catalog = tmp_path / "catalog.sqlite3"
    catalog.write_bytes(b"this is no database" * 100)
    with pytest.raises(ConfigError, match=r"catalog\.sqlite3 cannot be used"):
        Library(tmp_path)
    catalog.unlink()
    async with Library(tmp_path) as library:
        assert await library.count_uploads() == 0
