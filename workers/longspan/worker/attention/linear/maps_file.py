"""Feature maps of one model in a file, as distillation writes it and a worker reads it.

A safetensors file with the tensors ``layers.N.query_weight``, ``.key_weight``, ``.factor_weight``
and ``.factor_bias`` of each layer that has maps (see ``Hedgehog``), in float32. Its metadata has
one entry, ``longspan-maps``, a JSON object:

    {"version": 1, "kind": "hedgehog", "fingerprint": "5b2c…", "distilled": {"tokens": 65536}}

Read strictly: what is not understood is an error. Nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, deserialize
from safetensors.torch import save

from longspan.worker.attention.linear.hedgehog import Hedgehog

VERSION = 1
KIND = "hedgehog"
HEADER = "longspan-maps"
KEYS = ("version", "kind", "fingerprint", "distilled")
MOST_BYTES = 4 << 30
"""Of a file: it is read at once."""

_TENSOR = re.compile(r"layers\.(0|[1-9]\d{0,4})\.([a-z_]+)", re.ASCII)
_WEIGHTS = ("query_weight", "key_weight", "factor_weight", "factor_bias")


class BadMapsFile(ValueError):
    """The bytes are no feature maps; the message names the place in them."""


@dataclass(frozen=True, slots=True)
class MapsFile:
    """What a file of feature maps says.

    Attributes:
        fingerprint: of the model that they were distilled from.
        layers: the maps of each layer that has some, by its index.
        distilled: from what, JSON values only; not read when they are served.
    """

    fingerprint: str
    layers: Mapping[int, Hedgehog]
    distilled: Mapping[str, Any] = field(default_factory=dict)


def parse_maps(data: bytes) -> MapsFile:
    """The maps that a file's bytes hold.

    Raises:
        BadMapsFile: they are no safetensors, or say something else than the format has.
    """
    header = _header(data)
    try:
        stored = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise BadMapsFile(f"no safetensors: {error}") from error
    layers: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in stored:
        layer, weight = _place(name)
        layers.setdefault(layer, {})[weight] = _tensor(name, tensor)
    if not layers:
        raise BadMapsFile("it has no layers")
    return MapsFile(
        fingerprint=header["fingerprint"],
        layers={index: _maps(index, layers[index]) for index in sorted(layers)},
        distilled=header["distilled"],
    )


def format_maps(file: MapsFile) -> bytes:
    """The bytes of a file; ``parse_maps`` gives the same maps again."""
    header = {
        "version": VERSION,
        "kind": KIND,
        "fingerprint": file.fingerprint,
        "distilled": dict(file.distilled),
    }
    tensors = {
        f"layers.{index}.{name}": weight.detach().float().cpu().contiguous()
        for index, maps in file.layers.items()
        for name, weight in maps.named_parameters()
    }
    return save(tensors, {HEADER: json.dumps(header, allow_nan=False)})


def read_bytes(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        OSError: it cannot be read.
        BadMapsFile: it is larger than any maps.
    """
    if path.stat().st_size > MOST_BYTES:
        raise BadMapsFile(f"it has more than {MOST_BYTES} bytes")
    return path.read_bytes()


def digest(data: bytes) -> str:
    """What tells these maps from others: SHA-256 of the file, lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _header(data: bytes) -> Mapping[str, Any]:
    """The JSON object in the metadata, checked."""
    length = int.from_bytes(data[:8], "little")
    if not 0 < length <= len(data) - 8:
        raise BadMapsFile("no safetensors: it has no header")
    metadata = _object(data[8 : 8 + length], "the header").get("__metadata__")
    if not isinstance(metadata, dict) or metadata.keys() != {HEADER}:
        raise BadMapsFile(f"its metadata is not {HEADER} alone")
    if not isinstance(metadata[HEADER], str):
        raise BadMapsFile(f"{HEADER} is no text")
    content = _object(metadata[HEADER].encode("utf-8", "surrogatepass"), HEADER)
    if set(content) != set(KEYS):
        raise BadMapsFile(f"{HEADER} has the keys {sorted(content)}, not {sorted(KEYS)}")
    _check(content)
    return content


def _check(content: Mapping[str, Any]) -> None:
    version = content["version"]
    if type(version) is not int or version != VERSION:
        raise BadMapsFile(f"version is {version!r}; this release reads {VERSION}")
    if content["kind"] != KIND:
        raise BadMapsFile(f"kind is {content['kind']!r}; only {KIND} maps are distilled")
    if not isinstance(content["fingerprint"], str) or not content["fingerprint"]:
        raise BadMapsFile(f"fingerprint is {content['fingerprint']!r}, no text")
    if not isinstance(content["distilled"], dict):
        raise BadMapsFile("distilled is no JSON object")


def _object(data: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(data.decode("utf-8"), parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise BadMapsFile(f"{where} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadMapsFile(f"{where} is no JSON object")
    return content


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _place(name: str) -> tuple[int, str]:
    found = _TENSOR.fullmatch(name)
    if found is None or found[2] not in _WEIGHTS:
        raise BadMapsFile(f"it has an unknown tensor {name!r}")
    return int(found[1]), found[2]


def _tensor(name: str, stored: Mapping[str, Any]) -> torch.Tensor:
    if stored["dtype"] != "F32":
        raise BadMapsFile(f"{name} is {stored['dtype']}, not F32")
    if 0 in stored["shape"]:
        raise BadMapsFile(f"{name} is empty")
    numbers = torch.frombuffer(bytearray(stored["data"]), dtype=torch.float32)
    if not bool(numbers.isfinite().all()):
        raise BadMapsFile(f"{name} has a number that is not finite")
    return numbers.view(stored["shape"])


def _maps(index: int, weights: Mapping[str, torch.Tensor]) -> Hedgehog:
    missing = [name for name in _WEIGHTS if name not in weights]
    if missing:
        raise BadMapsFile(f"layer {index} has no {missing[0]}")
    query, key = weights["query_weight"], weights["key_weight"]
    if query.dim() != 3 or key.dim() != 3 or len(query) % len(key):
        raise BadMapsFile(f"layer {index} has weights of shapes that are no heads'")
    heads, kv_heads, d = len(query), len(key), query.shape[-1]
    maps = Hedgehog(heads, kv_heads, d)
    for name, right in maps.named_parameters():
        found, wanted = tuple(weights[name].shape), tuple(right.shape)
        if found != wanted:
            raise BadMapsFile(f"layer {index}: {name} is {found}, not {wanted}")
    maps.load_state_dict(dict(weights))
    return maps.requires_grad_(False)
