"""What docs/kubernetes.md and the README say about the manifests is so."""

from __future__ import annotations

import re

import pytest

from longspan.server.config import Config
from tests.k8s.rendered import APPLIED, K8S, OVERLAYS, render
from tests.k8s.settings import settings
from tests.support.data import REPOSITORY

PAGE = (REPOSITORY / "docs" / "kubernetes.md").read_text("utf-8")
README = (REPOSITORY / "README.md").read_text("utf-8")


def row(overlay: str, config: Config) -> list[str]:
    """An overlay's row of the table of sizes."""
    pod = render(f"overlays/{overlay}").server()
    resources = pod.container["resources"]
    [claim] = pod.claims
    pages = ""
    if config.model is not None:
        pages = f"{config.kv_disk >> 30}GiB"
        for volume in pod.spec["volumes"]:
            if "ephemeral" in volume:
                own = volume["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]
                pages += f" of {own['requests']['storage']}"
    return [
        f"`{overlay}`",
        resources["requests"]["cpu"],
        resources["limits"]["memory"],
        resources["limits"].get("nvidia.com/gpu", "0"),
        claim["spec"]["resources"]["requests"]["storage"],
        pages,
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_sizes_are_those_of_the_manifests(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = row(overlay, settings(render(f"overlays/{overlay}"), monkeypatch))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines()]
    assert cells in rows


@pytest.mark.parametrize("text", [PAGE, README], ids=["page", "readme"])
def test_what_it_says_to_apply_can_be_applied(text: str) -> None:
    applied = re.findall(r"^kubectl apply -k k8s/(\S+)$", text, re.MULTILINE)
    assert applied
    assert set(applied) <= set(APPLIED)


def test_it_names_every_overlay_and_component() -> None:
    for name in OVERLAYS:
        assert f"| `k8s/overlays/{name}` |" in PAGE
    for component in (K8S / "components").iterdir():
        assert f"`{component.name}`" in PAGE


def test_it_builds_the_images_as_the_dockerfile_says() -> None:
    head = (REPOSITORY / "Dockerfile").read_text("utf-8").splitlines()[:2]
    for line in head:
        assert line.removeprefix("# ") in PAGE


def test_the_times_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    small = settings(render("overlays/dev-cpu"), monkeypatch)
    large = settings(render("overlays/single-gpu"), monkeypatch)
    assert f"{small.drain_s:g} s in `dev-cpu`, {large.drain_s:g} s with a GPU" in PAGE
    container = render("overlays/single-gpu").server().container
    assert f"{container['lifecycle']['preStop']['sleep']['seconds']} s pass (`preStop`)" in PAGE
    probe = container["startupProbe"]
    assert f"waits {probe['periodSeconds'] * probe['failureThreshold']} s" in PAGE
