"""The Dockerfile, as far as it can be checked without building it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from longspan.server.config import load_config
from tests.k8s.rendered import OVERLAYS, render
from tests.support.data import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text("utf-8")
IGNORED = (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]


def instructions(name: str) -> list[str]:
    """The arguments of all instructions of a name, continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name}\s+(.*)$", joined, re.MULTILINE)


def environment() -> dict[str, str]:
    """The variables of the last stage, which is the last to set any."""
    pairs = (pair.partition("=") for pair in shlex.split(instructions("ENV")[-1]))
    return {name: value for name, _, value in pairs}


def copied() -> list[str]:
    """Paths of this repository that stages copy."""
    paths = []
    for arguments in instructions("COPY"):
        if not arguments.startswith("--from="):
            paths += arguments.split()[:-1]
    return paths


def test_what_is_copied_exists_and_is_sent_to_the_build() -> None:
    assert "server" in copied()
    for path in copied():
        assert (REPOSITORY / path).exists(), path
        assert f"!{path}" in IGNORED, path
    assert IGNORED[1] == "*"


def test_what_the_package_is_built_from_is_copied() -> None:
    configuration = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    wheel = configuration["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {package.split("/")[0] for package in wheel["packages"]}
    needed |= {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "constraints.txt"}
    assert set(copied()) == needed


def test_images_begin_with_an_exact_version() -> None:
    stages = {line.split(" AS ")[1] for line in instructions("FROM")}
    bases = {line.split(" AS ")[0] for line in instructions("FROM")}
    outside = bases - stages - {"torch-${VARIANT}"}
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base) for base in outside)
    assert len(outside) == 1


def test_it_runs_on_the_python_that_the_package_asks_for() -> None:
    [version] = re.findall(r"python:(3\.\d+)\.", DOCKERFILE)
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert tuple(map(int, version.split("."))) >= tuple(map(int, oldest.split(".")))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_there_is_a_variant_for_every_overlay(overlay: str) -> None:
    stages = {line.split(" AS ")[1] for line in instructions("FROM")}
    image = render(f"overlays/{overlay}").server().container["image"]
    assert f"torch-{image.rpartition('-')[2]}" in stages
    assert f"--tag {image}" in DOCKERFILE


def test_it_runs_as_the_user_that_the_pods_have() -> None:
    context = render("overlays/dev-cpu").server().spec["securityContext"]
    user = f"{context['runAsUser']}:{context['runAsGroup']}"
    assert instructions("USER") == [user]


def test_its_settings_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {n: v for n, v in environment().items() if n.startswith("LONGSPAN_")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = load_config([])
    assert config.data_dir == Path("/var/lib/longspan")
    assert instructions("EXPOSE") == [config.listen.rpartition(":")[2]]


def test_its_command_is_one_of_the_package() -> None:
    [command] = [json.loads(arguments) for arguments in instructions("ENTRYPOINT")]
    assert command[0] in PROJECT["scripts"]
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run([str(program), "--help"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "--data-dir" in done.stdout
