"""Every kustomization renders, and the API would take every object of it."""

from __future__ import annotations

import copy

import kubernetes_validate
import pytest

from tests.k8s.rendered import APPLIED, K8S, OVERLAYS, Object, kustomization, render

# The oldest that knows preStop's sleep without a feature gate, and the newest known schema.
VERSIONS = ["1.30", "1.37"]


def skipped(objects: tuple[Object, ...], version: str) -> set[str]:
    """Validate; kinds without a schema are not looked at, and returned."""
    kinds = set()
    for item in objects:
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            kinds.add(f"{item['apiVersion']}/{item['kind']}")
    return kinds


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", APPLIED)
def test_every_object_fits_its_schema(folder: str, version: str) -> None:
    assert skipped(render(folder).objects, version) == set()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_misspelt_field_does_not_fit(version: str) -> None:
    [stateful_set] = copy.deepcopy(render("overlays/dev-cpu").of_kind("StatefulSet"))
    [container] = stateful_set["spec"]["template"]["spec"]["containers"]
    container["livenesProbe"] = container.pop("livenessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        skipped((stateful_set,), version)


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
