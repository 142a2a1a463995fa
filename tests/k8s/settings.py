"""The configuration that the server of an overlay would read, read by the server's own code."""

from __future__ import annotations

import pytest

from longspan.server.config import Config, load_config
from tests.k8s.rendered import Rendered


def environment(rendered: Rendered) -> dict[str, str]:
    """The variables of the server's container."""
    container = rendered.server().container
    maps = {item["metadata"]["name"]: item["data"] for item in rendered.of_kind("ConfigMap")}
    variables: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        variables |= maps[source["configMapRef"]["name"]]
    return variables | {item["name"]: item["value"] for item in container.get("env", ())}


def settings(rendered: Rendered, monkeypatch: pytest.MonkeyPatch) -> Config:
    """What those variables and the container's arguments mean.

    Raises:
        ConfigError: a name or a value is none that the server knows.
    """
    for name, value in environment(rendered).items():
        monkeypatch.setenv(name, value)
    return load_config(rendered.server().container.get("args", []))


def listening(config: Config) -> tuple[int, int]:
    """The ports of the API and of the admin services."""
    assert config.admin_listen is not None
    return _port(config.listen), _port(config.admin_listen)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
