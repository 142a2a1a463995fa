"""Everything that docs/security.md shows is run, and every test that SECURITY.md names exists."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from longspan.server.auth.opening import open_authenticator
from longspan.server.auth.refusal import Refusal
from longspan.server.config import load_config
from tests.auth.issuer import Issuer
from tests.support.data import REPOSITORY
from tests.support.process import ServerProcess

PAGE = (REPOSITORY / "docs" / "security.md").read_text("utf-8")
POLICY = (REPOSITORY / "SECURITY.md").read_text("utf-8")
BINARIES = Path(sys.executable).parent
PORT = "50051"


def blocks(language: str) -> list[str]:
    """The blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def block(word: str, language: str = "sh") -> str:
    """The one block that has a word."""
    [found] = [text for text in blocks(language) if word in text]
    return found


def run(script: str, folder: Path) -> str:
    """Run lines of a shell where ``longspan`` is a command and the examples lie."""
    variables = {name: value for name, value in os.environ.items() if "LONGSPAN" not in name}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=folder,
        env={**variables, "PATH": f"{BINARIES}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def served(script: str, folder: Path) -> Iterator[str]:
    """The server that a block starts, without a model; its port. The lines before are run."""
    lines = script.splitlines()
    [place] = [n for n, line in enumerate(lines) if line.startswith("longspan serve")]
    run("\n".join(lines[:place]), folder)
    flags = shlex.split(lines[place].removesuffix("&"))[2:]
    # The last address wins; relative files are this folder's.
    flags = [str(folder / flag) if (folder / flag).is_file() else flag for flag in flags]
    flags[flags.index("--listen") + 1] = "0.0.0.0:0"
    with ServerProcess.running(folder, *flags, "--encoder", "none") as server:
        yield str(server.port)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With certificates as the page makes them."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    run(block("our authority"), tmp_path)
    return tmp_path


def test_keys(folder: Path) -> None:
    with served(block("keys new"), folder) as port:
        out = run(block("LONGSPAN_API_KEY").replace(PORT, port), folder)
        assert "annual-report.md" in out
        [code] = blocks("python")
        program = folder / "program.py"
        program.write_text(code.replace(PORT, port))
        assert run(f"{sys.executable} {program}", folder) == "['annual-report.md']\n"


def test_certificates_of_callers(folder: Path) -> None:
    script = block("certificate-tenant")
    with served(script, folder) as port:
        run(script.splitlines()[-1].replace(PORT, port), folder)


def test_signed_tokens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    [text] = blocks("toml")
    (folder / "longspan.toml").write_text(text)
    issuer = Issuer()
    (folder / "issuer.jwks").write_bytes(issuer.pem)
    config = load_config(["--config", "longspan.toml"])
    authenticator = open_authenticator(config.auth, trust_metadata=False)
    sent = [("authorization", f"Bearer {issuer.token()}")]
    assert authenticator.tenant(sent, {}) == "a"


def test_every_reason_is_named() -> None:
    for refusal in Refusal:
        assert f"`{refusal.value}`" in PAGE


def test_every_test_that_is_named_exists() -> None:
    rows = [line for line in POLICY.splitlines() if line.startswith("|") and "tests/" in line]
    assert len(rows) > 10
    for row in rows:
        folder = Path()
        for name in re.findall(r"`((?:tests/\w+/)?test_\w+\.py)`", row):
            path = Path(name)
            folder = path.parent if len(path.parts) > 1 else folder
            assert (REPOSITORY / folder / path.name).exists(), name
