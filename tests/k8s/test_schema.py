"""Every kustomization renders, and the API would take every object of it."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pydantic
import pytest
import yaml

from tests.k8s import custom_resources
from tests.k8s.rendered import (
    APPLIED,
    COMPONENTS,
    K8S,
    OVERLAYS,
    Object,
    build,
    kustomization,
    render,
)

# The oldest that knows preStop's sleep without a feature gate, and the newest known schema.
VERSIONS = ["1.30", "1.37"]


def kind_of(item: Object) -> str:
    """Group, version and kind."""
    return f"{item['apiVersion']}/{item['kind']}"


def misspelt(node: Any) -> Iterator[Any]:
    """Copies in each of which one key of one object has another name, labels excepted."""
    if isinstance(node, list):
        for position, below in enumerate(node):
            for spoiled in misspelt(below):
                yield [*node[:position], spoiled, *node[position + 1 :]]
    elif isinstance(node, dict):
        for key, below in node.items():
            if key in ("matchLabels", "labels", "annotations"):
                continue
            others = {name: value for name, value in node.items() if name != key}
            yield {**others, f"{key}x": below}
            for spoiled in misspelt(below):
                yield {**others, key: spoiled}


def skipped(objects: tuple[Object, ...], version: str) -> set[str]:
    """Validate; kinds without a schema are not looked at, and returned."""
    kinds = set()
    for item in objects:
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            kinds.add(kind_of(item))
    return kinds


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", APPLIED)
def test_every_object_fits_its_schema(folder: str, version: str) -> None:
    skipped_kinds = skipped(render(folder).objects, version)
    assert skipped_kinds == (custom_resources.SPECS.keys() if "production" in folder else set())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_misspelt_field_does_not_fit(version: str) -> None:
    [stateful_set] = copy.deepcopy(render("overlays/dev-cpu").of_kind("StatefulSet"))
    [container] = stateful_set["spec"]["template"]["spec"]["containers"]
    container["livenesProbe"] = container.pop("livenessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        skipped((stateful_set,), version)


@pytest.mark.parametrize("kind", custom_resources.SPECS)
def test_kinds_of_operators_fit_as_well(kind: str) -> None:
    own = [item for item in render("overlays/production").objects if kind_of(item) == kind]
    assert own
    for item in own:
        custom_resources.validate(item)


@pytest.mark.parametrize("kind", custom_resources.SPECS)
def test_a_misspelt_field_of_those_does_not_fit(kind: str) -> None:
    [item, *_] = [item for item in render("overlays/production").objects if kind_of(item) == kind]
    for spoiled in misspelt(item["spec"]):
        with pytest.raises(pydantic.ValidationError):
            custom_resources.validate({**item, "spec": spoiled})


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_can_be_taken_alone(component: str, tmp_path: Path) -> None:
    """Over single-gpu, or where that has it already, over the base."""
    taken = kustomization(K8S / "overlays" / "single-gpu")["components"]
    below = "base" if f"../../components/{component}" in taken else "overlays/single-gpu"
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(K8S / below, tmp_path)],
        "components": [os.path.relpath(K8S / "components" / component, tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(content))
    objects = build(tmp_path).objects
    kinds = skipped(objects, VERSIONS[0])
    assert kinds <= custom_resources.SPECS.keys()


def test_every_component_is_part_of_an_overlay() -> None:
    used = set()
    for name in OVERLAYS:
        overlay = K8S / "overlays" / name
        for component in kustomization(overlay).get("components", ()):
            used.add((overlay / component).resolve())
    assert used == set((K8S / "components").iterdir())


@pytest.mark.parametrize("folder", APPLIED)
def test_everything_lies_in_the_one_namespace(folder: str) -> None:
    cluster_wide = {"Namespace", "PriorityClass"}
    for item in render(folder).objects:
        expected = None if item["kind"] in cluster_wide else "longspan"
        assert item["metadata"].get("namespace") == expected, item["metadata"]["name"]
