"""Which worker processes run: their command lines, devices and patience."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from longspan.server.config import Config, visible_devices
from longspan.server.pool.config import PoolConfig
from longspan.server.pool.model_info import ModelInfo

GPUS = Path("/proc/driver/nvidia/gpus")
# A socket's path has at most about 100 bytes; the pool adds its own part.
LONGEST_RUNTIME_DIR = 60
# Large weights are read, hashed and warmed up.
MODEL_START_S = 1800.0
# A step of many tokens through a large model on a slow machine.
MODEL_STEP_S = 600.0
# Of the KV pages on disk, what one tenant may take where there are several.
TENANT_SHARE = 0.5
# The workers of a model are bounded in sequences; in tokens they bound themselves.
UNBOUNDED_TOKENS = 1 << 62


def encoder_pool(config: Config, runtime_dir: Path | None) -> PoolConfig:
    """The pool of the encoder's workers."""

    def command(socket: Path, slot: int) -> list[str]:
        dtype, device = _of_encoder(config)
        named = ["--role", "encoder", "--model", config.encoder, "--dtype", dtype]
        return [*_worker(config, socket), *named, "--device", bound(device, slot)]

    return PoolConfig(
        command=command,
        template=config.worker_template if _of_encoder(config)[1] == "cpu" else None,
        workers=config.workers,
        heartbeat_timeout_s=config.heartbeat_timeout_s,
        runtime_dir=runtime_dir,
    )


def decoder_pool(config: Config, folder: Path, runtime_dir: Path | None) -> PoolConfig:
    """The pool of the model's workers.

    Args:
        config: the settings; a model is named there.
        folder: where that model lies.
        runtime_dir: where sockets are made.
    """

    workers = config.model_workers or _one_a_gpu(config.device)
    replicas = 1 if config.device == "cuda" else workers

    def command(socket: Path, slot: int) -> list[str]:
        named = ["--role", "decoder", "--model", str(folder), "--dtype", config.dtype]
        named += ["--device", bound(config.device, slot), "--replicas", str(replicas)]
        named += ["--host-replicas", str(workers)]
        named += ["--attention", config.attention]
        if config.attention_maps is not None:
            named += ["--attention-maps", str(config.attention_maps.resolve())]
        if config.tracing.endpoint is not None:
            named += ["--tracing-endpoint", config.tracing.endpoint]
        return [*_worker(config, socket), *named, *_sizes(config), *_tiers(config)]

    return PoolConfig(
        command=command,
        again=_no_smaller,
        template=config.worker_template if config.device == "cpu" else None,
        workers=workers,
        window_tokens=UNBOUNDED_TOKENS,
        window_jobs=config.model_sequences,
        start_timeout_s=MODEL_START_S,
        heartbeat_timeout_s=config.heartbeat_timeout_s,
        step_timeout_s=MODEL_STEP_S,
        runtime_dir=runtime_dir,
    )


def bound(device: str, slot: int) -> str:
    """The device of one worker: ``cuda`` is one GPU each, anything else is for all."""
    return f"cuda:{slot}" if device == "cuda" else device


def count_gpus(visible: str | None, listed: Path = GPUS) -> int:
    """GPUs that a worker may use; at least one, whose absence the worker reports better.

    Args:
        visible: ``CUDA_VISIBLE_DEVICES``, if it is set.
        listed: the driver's folder with an entry for each.
    """
    if visible is not None:
        return max(1, len([name for name in visible.split(",") if name.strip()]))
    try:
        return max(1, len(list(listed.iterdir())))
    except OSError:
        return 1


def runtime_dir(data_dir: Path) -> Path | None:
    """A folder for sockets in the data directory, emptied of what a killed server left.

    None, the system's temporary folder, where the path is too long for a socket.
    """
    folder = data_dir.resolve() / "run"
    if len(bytes(folder)) > LONGEST_RUNTIME_DIR:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def _of_encoder(config: Config) -> tuple[str, str]:
    """Dtype and device: what is said of it, else what is said at large, unless of a model."""
    beside = config.model is not None
    dtype = config.encoder_dtype or ("auto" if beside else config.dtype)
    device = config.encoder_device or ("cpu" if beside else config.device)
    return dtype, device


def _worker(config: Config, socket: Path) -> list[str]:
    command = [sys.executable, "-m", "longspan.worker", "--watch-stdin", "--socket", str(socket)]
    command += ["--log-level", config.log_level]
    if config.worker_threads is not None:
        command += ["--threads", str(config.worker_threads)]
    return command


def _no_smaller(model: ModelInfo) -> list[str]:
    """The memory of a worker that starts again: what requests in progress count on."""
    sizes = ["--kv-tokens", str(model.kv_tokens)]
    return [*sizes, "--kv-host-bytes", str(model.kv_host_bytes)] if model.kv_host_bytes else sizes


def _sizes(config: Config) -> list[str]:
    sizes: list[str] = []
    if config.kv_memory is not None:
        sizes += ["--kv-bytes", str(int(config.kv_memory))]
    if config.kv_host is not None:
        sizes += ["--kv-host-bytes", str(int(config.kv_host))]
    if config.step_tokens is not None:
        sizes += ["--step-tokens", str(config.step_tokens)]
    sizes += ["--decode-batches", config.decode_batches]
    return [*sizes, "--compile"] if config.compile_model else sizes


def _tiers(config: Config) -> list[str]:
    """Where pages go that the workers' memory does not hold; all workers share the disk."""
    tiers = ["--kv-ram-bytes", str(int(config.kv_ram))]
    if config.kv_disk:
        tiers += ["--kv-disk", str(config.data_dir.resolve() / "kv")]
        tiers += ["--kv-disk-bytes", str(int(config.kv_disk))]
        tiers += ["--kv-disk-floor", str(config.limits.kv_free_space_bytes)]
        share = TENANT_SHARE if config.has_tenants else 1.0
        tiers += ["--kv-disk-share", str(share)]
    return tiers


def _one_a_gpu(device: str) -> int:
    return count_gpus(visible_devices()) if device == "cuda" else 1
