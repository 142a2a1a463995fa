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


def listening(config: Config) -> dict[str, int]:
    """The ports of the API, of the admin services and of the metrics, by the names of pods."""
    assert config.admin_listen is not None
    assert config.metrics.listen is not None
    addresses = {
        "api": config.listen,
        "admin": config.admin_listen,
        "metrics": config.metrics.listen,
    }
    return {name: _port(address) for name, address in addresses.items()}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
