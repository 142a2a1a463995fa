"""Which worker processes a configuration starts, and on which devices."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import pytest

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.config import load_config
from longspan.server.errors import ConfigError
from longspan.server.pool.model_info import ModelInfo
from longspan.server.workers import count_gpus, decoder_pool, encoder_pool

SOCKET = Path("w.sock")


def _options(command: list[str]) -> dict[str, str]:
    """Flags and their values."""
    named = command[3:]
    return {
        flag: "" if value.startswith("--") else value
        for flag, value in zip(named, [*named[1:], "--"], strict=True)
        if flag.startswith("--")
    }


def _encoder(*flags: str) -> dict[str, str]:
    config = load_config(list(flags))
    return _options(list(encoder_pool(config, None).command(SOCKET, 0)))


def _decoder(slot: int, *flags: str) -> dict[str, str]:
    config = load_config(["--model", "owner/name", *flags])
    return _options(list(decoder_pool(config, Path("folder"), None).command(SOCKET, slot)))


def test_dtype_and_device_are_the_models_where_there_is_one() -> None:
    """Beside a model the encoder stays on the CPU unless it is named; alone it gets the flags."""
    flags = ("--dtype", "bfloat16", "--device", "cuda:1")
    alone, beside = _encoder(*flags), _encoder("--model", "owner/name", *flags)
    assert (alone["--dtype"], alone["--device"]) == ("bfloat16", "cuda:1")
    assert (beside["--dtype"], beside["--device"]) == ("auto", "cpu")
    named = ("--encoder-dtype", "float32", "--encoder-device", "cuda:0")
    chosen = _encoder("--model", "owner/name", *flags, *named)
    assert (chosen["--dtype"], chosen["--device"]) == ("float32", "cuda:0")
    model = _decoder(0, *flags)
    assert (model["--role"], model["--model"]) == ("decoder", "folder")
    assert (model["--dtype"], model["--device"]) == ("bfloat16", "cuda:1")


def test_each_worker_of_a_model_has_a_gpu_of_its_own() -> None:
    """``cuda`` binds a worker to the GPU of its slot; another device is everybody's."""
    assert [_decoder(slot, "--device", "cuda")["--device"] for slot in range(3)] == [
        "cuda:0",
        "cuda:1",
        "cuda:2",
    ]
    assert _decoder(3, "--device", "cpu")["--device"] == "cpu"


def test_workers_share_what_they_have_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of its own is not shared; the machine's memory is, and so is any other device."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    assert _shared("--device", "cuda") == ("1", "8")
    assert _shared("--device", "cuda", "--model-workers", "2") == ("1", "2")
    assert _shared("--device", "cuda:1", "--model-workers", "2") == ("2", "2")
    assert _shared("--model-workers", "3") == ("3", "3")


def _shared(*flags: str) -> tuple[str, str]:
    """How many share the device's memory, and how many the host's."""
    given = _decoder(0, *flags)
    return given["--replicas"], given["--host-replicas"]


def test_a_worker_that_starts_again_is_told_what_the_others_have() -> None:
    """The smallest counts; nothing is said of host memory that no policy uses."""
    assert _again(pb.Ready(kv_tokens=2048)) == {"--kv-tokens": "2048"}
    larger = pb.Ready(kv_tokens=4096, kv_host_bytes=7 << 30)
    smaller = pb.Ready(kv_tokens=2048, kv_host_bytes=5 << 30)
    assert _again(larger, smaller) == {"--kv-tokens": "2048", "--kv-host-bytes": str(5 << 30)}


def _again(*told: pb.Ready) -> dict[str, str]:
    pool = decoder_pool(load_config(["--model", "owner/name"]), Path("folder"), None)
    model = reduce(ModelInfo.least, map(ModelInfo.of, told))
    return _options(["", "", "", *pool.again(model)])


def test_sizes_are_handed_on_in_bytes_and_tokens() -> None:
    """Memory may be written with a unit; what is left out is the worker's to choose."""
    sizes = ("--kv-memory", "8GiB", "--step-tokens", "512", "--compile-model", "true")
    given = _decoder(0, *sizes, "--worker-threads", "3", "--kv-host", "3GiB")
    assert given["--kv-bytes"] == str(8 << 30)
    assert given["--kv-host-bytes"] == str(3 << 30)
    assert (given["--step-tokens"], given["--threads"]) == ("512", "3")
    assert "--compile" in given
    assert not {"--kv-bytes", "--kv-host-bytes", "--step-tokens", "--compile"} & _decoder(0).keys()


def test_the_default_policy_is_handed_on_as_it_is_named() -> None:
    """Whether there is such a policy is for the worker to say; encoders have none."""
    assert _decoder(0)["--attention"] == "full"
    assert _decoder(0, "--attention", "hybrid")["--attention"] == "hybrid"
    assert _decoder(0, "--attention", "nonsense")["--attention"] == "nonsense"
    assert _decoder(0, "--attention", "my/policy.json")["--attention"] == "my/policy.json"
    assert "--attention" not in _encoder("--model", "owner/name", "--attention", "hybrid")


def test_feature_maps_are_handed_on_by_their_whole_path() -> None:
    """A worker forked from a template stands in another folder."""
    assert "--attention-maps" not in _decoder(0)
    named = _decoder(0, "--attention-maps", "maps.safetensors")["--attention-maps"]
    assert Path(named) == Path.cwd() / "maps.safetensors"


@pytest.mark.parametrize(
    ("visible", "count"), [("0,1,2", 3), ("1", 1), ("", 1), ("GPU-a,GPU-b", 2)]
)
def test_visible_gpus_are_counted(visible: str, count: int, tmp_path: Path) -> None:
    """The variable that narrows the GPUs decides; without it, the driver's list does."""
    for number in range(4):
        (tmp_path / str(number)).mkdir()
    assert count_gpus(visible, tmp_path) == count
    assert count_gpus(None, tmp_path) == 4
    assert count_gpus(None, tmp_path / "absent") == 1


def test_workers_are_one_a_gpu_unless_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of workers follows the GPUs with ``cuda``, and is one otherwise."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert _workers("--device", "cuda") == 2
    assert _workers("--device", "cuda", "--model-workers", "5") == 5
    assert _workers() == 1


def _workers(*flags: str) -> int:
    config = load_config(["--model", "owner/name", *flags])
    return decoder_pool(config, Path("folder"), None).workers


def test_an_encoder_cannot_run_in_half_precision() -> None:
    """``float16`` without a model is refused at once, as the encoder would refuse it late."""
    with pytest.raises(ConfigError, match="float16 is for a model"):
        load_config(["--dtype", "float16"])
    load_config(["--dtype", "float16", "--model", "owner/name"])
