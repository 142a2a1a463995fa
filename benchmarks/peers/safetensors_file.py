"""Tensors of a safetensors file as float32 arrays, with NumPy alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


def read_float32(path: Path) -> dict[str, Float32]:
    """All tensors by name; bfloat16 ones are widened, which changes no value.

    Raises:
        ValueError: a tensor is of another dtype.
    """
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = _widened(data[start:end], entry["dtype"]).reshape(entry["shape"])
    return tensors


def _widened(data: bytes, dtype: str) -> Float32:
    if dtype == "F32":
        return np.frombuffer(data, "<f4")
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    raise ValueError(f"a tensor of {dtype}")
