"""A model's folder is found here, or downloaded from a hub: one that runs in this test."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from longspan.server.decoder.folder import resolve_folder
from longspan.server.errors import ConfigError

COMMIT = "a" * 40
FILES = {
    "config.json": b"{}",
    "model-00001-of-00001.safetensors": b"weights",
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "generation_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
}
NOT_WANTED = {
    "pytorch_model.bin": b"pickle",
    "modeling_mine.py": b"code",
    "original/model.safetensors": b"the same again",
    "consolidated.safetensors": b"and again",
    "README.md": b"words",
}
SCRIPT = """
import sys
from longspan.server.decoder.folder import resolve_folder
from longspan.server.errors import ConfigError
try:
    print(resolve_folder(sys.argv[1]))
except ConfigError as error:
    print("refused:", error)
"""


class Hub(BaseHTTPRequestHandler):
    """Has one model, ``owner/model``, at one revision."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/owner/model/resolve/"):
            self._send(200, (FILES | NOT_WANTED)[path.split("/", 5)[5]])
        elif path == f"/api/models/owner/model/tree/{COMMIT}":
            self._send(200, json.dumps(tree()).encode())
        elif path in ("/api/models/owner/model/revision/main", "/api/models/owner/model"):
            self._send(200, json.dumps({"id": "owner/model", "sha": COMMIT}).encode())
        else:
            known = path.startswith("/api/models/owner/model/")
            self._send(404, b"{}", code="RevisionNotFound" if known else "RepoNotFound")

    def _send(self, status: int, body: bytes, code: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{blob_id(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


def blob_id(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def tree() -> list[dict[str, object]]:
    return [
        {"type": "file", "path": path, "size": len(body), "oid": blob_id(body)}
        for path, body in (FILES | NOT_WANTED).items()
    ]


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def resolve(model: str, home: Path, **environment: str) -> str:
    """What a server process with this environment makes of ``--model``; one line."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, model],
        env={"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        cwd=home,
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = done.stdout.splitlines()
    return line


def test_a_folder_that_exists_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder wins over a hub id of the same spelling, and its path is absolute."""
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_folder("owner/model") == (tmp_path / "owner" / "model").resolve()


@pytest.mark.parametrize(
    "model", ["", " ", "no-such-folder", "/no/such/folder", "a/b/c", "a/b@", "../no/x"]
)
def test_what_can_be_neither_folder_nor_hub_id_is_refused(model: str) -> None:
    """The message names what was written, and nobody asks the hub."""
    with pytest.raises(ConfigError, match="no such folder, and not a hub id") as raised:
        resolve_folder(model)
    assert "\n" not in str(raised.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """Naming the weights themselves is a common slip, and is called one."""
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(ConfigError, match="is a file"):
        resolve_folder(str(file))


def test_only_what_a_decoder_needs_is_downloaded(hub: str, tmp_path: Path) -> None:
    """Weights as safetensors, configuration, tokenizer; no pickles, no code, no copies; and a
    download that is complete is found again without a network."""
    folder = Path(resolve("owner/model", tmp_path, HF_ENDPOINT=hub))
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found == FILES
    assert resolve("owner/model", tmp_path, HF_HUB_OFFLINE="1") == str(folder)
    assert resolve(f"owner/model@{COMMIT}", tmp_path, HF_HUB_OFFLINE="1") == str(folder)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("owner/missing", "the hub has no public model of this name"),
        ("owner/model@missing", "not this revision"),
    ],
)
def test_what_the_hub_does_not_have_is_one_clear_line(
    hub: str, tmp_path: Path, model: str, reason: str
) -> None:
    """The error says what is missing and names no server."""
    line = resolve(model, tmp_path, HF_ENDPOINT=hub)
    assert line.startswith(f"refused: model {model}: ")
    assert reason in line
    assert "http" not in line


def test_no_way_to_the_hub_is_one_clear_line(tmp_path: Path) -> None:
    """Offline without an earlier download, and a hub that does not answer."""
    refused = "no complete copy of an earlier download, and no way to the hub"
    assert refused in resolve("owner/model", tmp_path, HF_HUB_OFFLINE="1")
    assert refused in resolve("owner/model", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
