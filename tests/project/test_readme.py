"""Everything the README shows is run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from longspan.server.config import load_config
from tests.support.data import REPOSITORY
from tests.support.process import ServerProcess

README = (REPOSITORY / "README.md").read_text("utf-8")
BINARIES = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    pytest.importorskip("torch", reason="needs the embedded encoder")
    with ServerProcess.running(tmp_path_factory.mktemp("readme")) as server:
        yield server.port


def run(command: list[str], port: int) -> str:
    environment = {**os.environ, "LONGSPAN_SERVER": f"127.0.0.1:{port}"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_prints_what_the_readme_says(port: int) -> None:
    [code] = blocks("python")
    output = run([sys.executable, "-c", code.replace("50051", str(port))], port)
    shown = README.split("```\n“")[1].split("```")[0]
    assert shown.splitlines()[-1].removesuffix(" ...") in output


@pytest.fixture(scope="module")
def decoder_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    pytest.importorskip("torch", reason="needs a decoder")
    folder = tmp_path_factory.mktemp("decoder")
    make, serve = (line for line in block("random-decoder") if "random-decoder" in line)
    model = str(folder / "random-decoder")
    arguments = shlex.split(make.replace("random-decoder", model))[1:]
    subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, check=True, timeout=90)
    flags = shlex.split(serve.removesuffix("&").replace("random-decoder", model))[2:]
    position = flags.index("--data-dir")
    with ServerProcess.running(folder, *flags[:position], *flags[position + 2 :]) as server:
        yield server.port


def block(word: str) -> list[str]:
    """The lines of the first shell block that has the word, without comments."""
    found = next(text for text in blocks("sh") if word in text)
    return [line.split("  #")[0].strip() for line in found.splitlines()]


def commands(word: str) -> list[str]:
    return [line for line in block(word) if line.startswith("longspan ") and "serve" not in line]


@pytest.mark.parametrize("command", commands("random-decoder"))
def test_every_command_of_the_decoder_runs(command: str, decoder_port: int) -> None:
    program, *arguments = shlex.split(command)
    assert run([str(BINARIES / program), *arguments], decoder_port).strip()


@pytest.mark.parametrize("command", commands("longspan docs"))
def test_every_command_runs(command: str, port: int) -> None:
    program, *arguments = shlex.split(command)
    output = run([str(BINARIES / program), *arguments], port)
    assert output.strip()
    if "--json" in arguments:
        assert [json.loads(line) for line in output.splitlines()]


def test_the_configuration_loads(tmp_path: Path) -> None:
    [text] = blocks("toml")
    path = tmp_path / "longspan.toml"
    path.write_text(text)
    config = load_config(["--config", str(path)])
    assert config.limits.document_bytes == 16_000_000


def test_the_documented_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    for target in re.findall(r"make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
