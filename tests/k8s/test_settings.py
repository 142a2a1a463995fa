"""What the manifests tell the server, it understands; what they give it, it has room for."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from longspan.server.app import FLUSH_S, UNWIND_S
from longspan.server.config import Config
from longspan.server.errors import ConfigError
from longspan.server.exposure import check_exposure
from longspan.server.pool.config import PoolConfig
from longspan.server.workers import MODEL_START_S, decoder_pool, encoder_pool
from tests.k8s.quantity import quantity
from tests.k8s.rendered import OVERLAYS, Pod, Rendered, render
from tests.k8s.settings import environment, settings

# A volume is never wholly the server's: file systems keep some, and a full one is evicted.
USABLE = 0.9


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Rendered:
    return render(f"overlays/{request.param}")


@pytest.fixture
def config(overlay: Rendered, monkeypatch: pytest.MonkeyPatch) -> Config:
    return settings(overlay, monkeypatch)


def mount_of(pod: Pod, path: PurePosixPath) -> dict[str, Any]:
    """The mount with the longest path that holds a path."""
    mounts = pod.container["volumeMounts"]
    holding = [m for m in mounts if path.is_relative_to(m["mountPath"])]
    assert holding, f"{path} is in no volume"
    return dict(max(holding, key=lambda mount: len(mount["mountPath"])))


def volume_bytes(pod: Pod, name: str) -> float:
    """The size of a volume that the pod's own template makes."""
    specs = {claim["metadata"]["name"]: claim["spec"] for claim in pod.claims}
    for volume in pod.spec["volumes"]:
        if "ephemeral" in volume:
            specs[volume["name"]] = volume["ephemeral"]["volumeClaimTemplate"]["spec"]
    return quantity(specs[name]["resources"]["requests"]["storage"])


def pools(config: Config) -> list[PoolConfig]:
    """The worker pools that the server would run."""
    found = [encoder_pool(config, None)]
    if config.model is not None:
        found.append(decoder_pool(config, Path(config.model), None))
    return found


def test_an_unknown_variable_would_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is what service links would set: Kubernetes names them after the Service."""
    monkeypatch.setenv("LONGSPAN_PORT", "tcp://10.0.0.1:50051")
    with pytest.raises(ConfigError, match="LONGSPAN_PORT"):
        settings(render("overlays/dev-cpu"), monkeypatch)


def test_no_service_links(overlay: Rendered) -> None:
    assert overlay.server().spec["enableServiceLinks"] is False


def test_every_setting_is_known(config: Config) -> None:
    assert config.drain_s > 0


def test_it_may_listen_as_it_is_told(config: Config) -> None:
    """Beyond the machine only with TLS and callers it knows, or if that is called insecure."""
    check_exposure(config.listen, config.tls, config.auth, insecure=config.insecure)


def test_documents_outlive_the_pod(overlay: Rendered, config: Config) -> None:
    pod = overlay.server()
    mount = mount_of(pod, PurePosixPath(config.data_dir))
    assert not mount.get("readOnly")
    assert mount["name"] in {claim["metadata"]["name"] for claim in pod.claims}
    [stateful_set] = overlay.of_kind("StatefulSet")
    kept = stateful_set["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert kept == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_the_disk_has_room_for_pages_and_documents(overlay: Rendered, config: Config) -> None:
    pod = overlay.server()
    data = mount_of(pod, PurePosixPath(config.data_dir))["name"]
    kept_free = config.limits.free_space_bytes + config.limits.document_bytes
    assert volume_bytes(pod, data) * USABLE > kept_free
    if config.model is not None:
        pages = mount_of(pod, PurePosixPath(config.data_dir) / "kv")["name"]
        needed = config.kv_disk + config.limits.kv_free_space_bytes
        assert volume_bytes(pod, pages) * USABLE > needed


@pytest.mark.parametrize("name", [name for name in OVERLAYS if name != "dev-cpu"])
def test_a_model_is_mounted_read_only_and_never_downloaded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = render(f"overlays/{name}")
    model = settings(rendered, monkeypatch).model
    assert model is not None
    assert mount_of(rendered.server(), PurePosixPath(model))["readOnly"] is True
    assert environment(rendered)["HF_HUB_OFFLINE"] == "1"


def test_each_gpu_has_one_worker(overlay: Rendered, config: Config) -> None:
    pod = overlay.server()
    gpus = int(pod.container["resources"]["limits"].get("nvidia.com/gpu", 0))
    assert (gpus > 0) == (config.device == "cuda") == pod.container["image"].endswith("-cuda")
    assert config.model_workers == (gpus or None)


def test_memory_holds_what_workers_are_allowed(overlay: Rendered, config: Config) -> None:
    memory = quantity(overlay.server().container["resources"]["limits"]["memory"])
    pages = config.kv_ram * (config.model_workers or 1) if config.model is not None else 0
    assert pages + config.limits.index_memory_bytes <= memory / 2


def test_workers_compute_on_the_cores_that_were_asked_for(
    overlay: Rendered, config: Config
) -> None:
    """Without a number, each would start a thread for every core of the node."""
    cores = quantity(overlay.server().container["resources"]["requests"]["cpu"])
    assert config.worker_threads is not None
    assert config.worker_threads * sum(pool.workers for pool in pools(config)) <= cores


def test_a_drain_ends_before_it_is_cut(overlay: Rendered, config: Config) -> None:
    pod = overlay.server()
    before = pod.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    stopping = sum(pool.stop_grace_s for pool in pools(config))
    needed = before + config.drain_s + FLUSH_S + UNWIND_S + stopping
    assert needed < pod.spec["terminationGracePeriodSeconds"]


def test_a_start_is_waited_for(overlay: Rendered, config: Config) -> None:
    probe = overlay.server().container["startupProbe"]
    longest = max(pool.start_timeout_s for pool in pools(config))
    assert longest <= MODEL_START_S
    assert probe["periodSeconds"] * probe["failureThreshold"] > longest
