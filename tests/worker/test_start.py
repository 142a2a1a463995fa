"""Model files and devices that a worker refuses before it serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from longspan.worker.devices import choose_dtype, open_device
from longspan.worker.encoding.loading import load_encoder, self_check
from longspan.worker.failures import StartFailure
from longspan.worker.model_files import EMBEDDED_SHA256, find_model
from longspan.worker.process import check_socket
from tests.worker.models import load, save_tiny_model, skip_without_embedded


def set_config(folder: Path, **changes: object) -> None:
    """Change keys of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def add_pooling(folder: Path) -> None:
    """Say that the model pools by its first token."""
    (folder / "1_Pooling").mkdir()
    pooling = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (lambda folder: set_config(folder, model_type="llama"), "'llama' is not supported"),
        (lambda folder: set_config(folder, vocab_size=None), "no usable vocab_size"),
        (lambda folder: (folder / "model.safetensors.sha256").write_text(""), "is empty"),
        (add_pooling, "only mean pooling"),
    ],
)
def test_an_unusable_folder_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(save_tiny_model(tmp_path))
    with pytest.raises(StartFailure, match=message):
        find_model(str(tmp_path))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 64), "no loadable model"),
        (lambda folder: set_config(folder, num_hidden_layers=3), "lacks weights, encoder.layer.2"),
        (lambda folder: set_config(folder, hidden_size=64), "no loadable model"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json cannot be"),
    ],
)
def test_files_that_hold_no_encoder_are_refused(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(save_tiny_model(tmp_path))
    with pytest.raises(StartFailure, match=message) as failure:
        load(tmp_path)
    assert "\n" not in str(failure.value)


def test_the_embedded_model_has_the_published_digest_and_length() -> None:
    skip_without_embedded()
    files = find_model("embedded")
    assert files.fingerprint == EMBEDDED_SHA256
    assert (files.name, files.max_tokens) == ("all-MiniLM-L6-v2", 256)


@pytest.mark.parametrize("name", ["cuda:77", "quantum", "cpu:x"])
def test_an_unusable_device_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(StartFailure, match=f"device {name} cannot be used") as failure:
        open_device(name)
    assert "\n" not in str(failure.value)


def test_bfloat16_is_chosen_only_where_the_hardware_has_it() -> None:
    cpu = torch.device("cpu")
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert choose_dtype("auto", cpu) is (torch.bfloat16 if native else torch.float32)
    assert choose_dtype("bfloat16", cpu) is torch.bfloat16


def test_bfloat16_passes_its_own_self_check(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    encoder = load_encoder(find_model(str(folder)), device="cpu", dtype="bfloat16")
    assert encoder.encode([np.array([5], np.uint32)]).dtype == np.float32


def test_the_self_check_catches_packed_texts_that_see_each_other(tmp_path: Path) -> None:
    encoder = load(save_tiny_model(tmp_path))
    encoder._kernel = lambda q, k, v, segments: v.mean(0, keepdim=True).expand_as(v)
    with pytest.raises(StartFailure, match="self-check failed"):
        self_check(encoder)


def test_socket_paths_that_cannot_be_served_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartFailure, match="not a socket"):
        check_socket(tmp_path / "file")
    with pytest.raises(StartFailure, match="does not exist"):
        check_socket(tmp_path / "absent" / "worker.sock")
    with pytest.raises(StartFailure, match="longer than"):
        check_socket(tmp_path / ("x" * 120))
