"""Configuration: file below environment below flags; nothing unknown passes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from longspan.server.config import CLIENT_VARIABLES, load_config
from longspan.server.errors import ConfigError
from tests.support.data import REPOSITORY


def write(folder: Path, text: str) -> str:
    path = folder / "longspan.toml"
    path.write_text(text)
    return str(path)


def test_flags_win_over_environment_and_environment_over_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, 'listen = "file:1"\nencoder = "none"\n[limits]\nrequests = 7\n')
    monkeypatch.setenv("LONGSPAN_LISTEN", "environment:1")
    monkeypatch.setenv("LONGSPAN_LIMITS__TITLE_BYTES", "9")
    config = load_config(["--config", file, "--workers", "3"])
    assert (config.listen, config.encoder, config.workers) == ("environment:1", "none", 3)
    assert (config.limits.requests, config.limits.title_bytes) == (7, 9)
    assert load_config(["--config", file, "--listen", "flag:1"]).listen == "flag:1"


def test_the_default_policy_is_set_like_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_config([]).attention == "full"
    file = write(tmp_path, 'attention = "window"\n')
    assert load_config(["--config", file]).attention == "window"
    monkeypatch.setenv("LONGSPAN_ATTENTION", "hybrid")
    assert load_config(["--config", file]).attention == "hybrid"
    assert load_config(["--config", file, "--attention", "full"]).attention == "full"


def test_the_file_may_be_named_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGSPAN_CONFIG", write(tmp_path, "workers = 5\n"))
    assert load_config([]).workers == 5


def test_spans_go_nowhere_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_config([]).tracing.endpoint is None
    monkeypatch.setenv("LONGSPAN_TRACING__ENDPOINT", "http://collector:4317")
    tracing = load_config(["--tracing.sample-ratio", "0.25"]).tracing
    assert (tracing.endpoint, tracing.sample_ratio) == ("http://collector:4317", 0.25)


@pytest.mark.parametrize(
    "flags", [["--tracing.endpoint", "collector:4317"], ["--tracing.sample-ratio", "1.5"]]
)
def test_spans_cannot_go_just_anywhere(flags: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"tracing\."):
        load_config(flags)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("listne = 'x'\n", "listne: unknown key"),
        ("[limits]\nrequest = 3\n", "limits.request: unknown key"),
        ("workers = 0\n", "workers"),
        ("workers = 'many'\n", "workers"),
        ("workers = \n", "line 1"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(["--config", write(tmp_path, text)])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(["--config", str(tmp_path / "absent.toml")])


def test_an_unknown_variable_is_refused_but_the_clients_own_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LONGSPAN_SERVER", "localhost:1")
    load_config([])
    monkeypatch.setenv("LONGSPAN_LISTNE", "x")
    with pytest.raises(ConfigError, match="LONGSPAN_LISTNE"):
        load_config([])


def test_an_unknown_flag_ends_the_process_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        load_config(["--listne", "x"])
    assert stopped.value.code == 2
    assert "--listne" in capsys.readouterr().err


def test_the_clients_variables_are_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = REPOSITORY / "clients" / "longspan" / "client" / "_cli"
    found = {
        name
        for path in folder.glob("*.py")
        for name in re.findall(r'envvar="(\w+)"', path.read_text("utf-8"))
    }
    assert found == CLIENT_VARIABLES
    for name in found:
        monkeypatch.setenv(name, "x")
    assert not load_config([]).tls.enabled
