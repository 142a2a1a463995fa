"""Index files: safetensors, checksummed, written aside and renamed.

An index is derived data: a file that is missing, damaged or of another layout reads as
None and is built again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from longspan.server.index.passage_index import PassageIndex

LAYOUT = "1"
_ARRAYS = ("spans", "sentences", "first_sentence", "terms", "first_term", "vectors")


def save(path: Path, index: PassageIndex, *, key: str) -> None:
    """Write ``index``; a reader sees the old file or the whole new one. Blocking.

    Args:
        path: where it goes.
        index: what to write.
        key: what the index was made from; only a ``load`` with the same key accepts it.

    Raises:
        OSError: the disk refuses the file.
    """
    arrays = {name: np.ascontiguousarray(getattr(index, name)) for name in _ARRAYS}
    metadata = {
        "layout": LAYOUT,
        "tokens": str(index.tokens),
        "sha256": _digest(arrays, index.tokens, key),
    }
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        save_file(arrays, aside, metadata)
        os.replace(aside, path)
    except SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from error
    finally:
        aside.unlink(missing_ok=True)


def load(path: Path, *, key: str) -> PassageIndex | None:
    """Read and verify an index; None when there is none that can be trusted. Blocking."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("layout") != LAYOUT:
                return None
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
            tokens = int(metadata["tokens"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    if metadata.get("sha256") != _digest(arrays, tokens, key):
        return None
    return PassageIndex(**arrays, tokens=tokens)


def _digest(arrays: dict[str, np.ndarray], tokens: int, key: str) -> str:
    digest = hashlib.sha256(json.dumps(key).encode())
    for name, array in sorted(arrays.items()):
        head = json.dumps([name, str(array.dtype), array.shape, tokens])
        digest.update(head.encode())
        digest.update(array.data)
    return digest.hexdigest()
