"""The safetensors of a model folder: which files, how many bytes, whether they are whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from longspan.worker.failures import StartFailure

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
HASHING_THREADS = 4
ELEMENT_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4}
ELEMENT_BITS |= {"U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32}
ELEMENT_BITS |= {"U64": 64, "I64": 64, "F64": 64}
MXFP4_BLOCKS = "_proj_blocks"
FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a shard, not loaded; ``dtype`` as safetensors names it."""

    name: str
    dtype: str
    elements: int

    def bytes_as(self, element_bytes: int) -> int:
        """Bytes once floats have ``element_bytes``; everything else keeps its own size.

        Blocks of MXFP4 hold two floats in a byte, and are unpacked by the loader.
        """
        if self.dtype in FLOATS:
            return self.elements * element_bytes
        if self.dtype == "U8" and self.name.endswith(MXFP4_BLOCKS):
            return 2 * self.elements * element_bytes
        return self.elements * ELEMENT_BITS[self.dtype] // 8


def find_shards(folder: Path) -> tuple[Path, ...]:
    """The weight files, by name.

    Raises:
        StartFailure: there is no safetensors, or the index names something absent or outside.
    """
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,)
    if not (folder / INDEX).is_file():
        raise StartFailure(_absence(folder))
    names = sorted(set(_weight_map(folder / INDEX).values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise StartFailure(f"{folder / INDEX} names {name!r}, which is no file beside it")
        if not (folder / name).is_file():
            raise StartFailure(f"{folder / INDEX} names {name}, which is absent")
    return tuple(folder / name for name in names)


def read_headers(shards: tuple[Path, ...]) -> tuple[StoredTensor, ...]:
    """Every tensor of every shard, from the headers alone.

    Raises:
        StartFailure: a shard is truncated or no safetensors file.
    """
    return tuple(tensor for shard in shards for tensor in _header(shard))


def weight_bytes(tensors: tuple[StoredTensor, ...], element_bytes: int) -> int:
    """Bytes of all tensors once floats have ``element_bytes``."""
    return sum(tensor.bytes_as(element_bytes) for tensor in tensors)


def fingerprint(config: Path, shards: tuple[Path, ...]) -> str:
    """SHA-256 over the names and contents of the configuration and of every shard.

    It tells models apart whose KV must not be mixed: lower-case hexadecimal.
    """
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        files = (config, *shards)
        lines = zip(files, pool.map(_sha256, files), strict=True)
        listing = "".join(f"{digest}  {path.name}\n" for path, digest in lines)
    return hashlib.sha256(listing.encode()).hexdigest()


def _absence(folder: Path) -> str:
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        return f"model folder {folder} has only pickled weights ({pickled[0]}), no {SINGLE}"
    return f"model folder {folder} has no {SINGLE}"


def _weight_map(index: Path) -> Mapping[str, str]:
    try:
        content: Any = json.loads(index.read_bytes())
        names = content["weight_map"]
        if not all(isinstance(name, str) for name in names.values()) or not names:
            raise ValueError("its weight_map names no files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StartFailure(f"{index} is no index of weights: {error}") from error
    assert isinstance(names, dict)
    return names


def _header(shard: Path) -> Iterator[StoredTensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="numpy") as file:
            for name in list(file.keys()):
                part = file.get_slice(name)
                yield StoredTensor(name, part.get_dtype(), prod(part.get_shape()))
    except (OSError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise StartFailure(f"{shard} is damaged or no safetensors file: {reason}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
