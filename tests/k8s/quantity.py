"""Kubernetes' quantities, such as ``500m`` and ``4Gi``, as numbers."""

from __future__ import annotations

import re

_FACTORS = {"": 1.0, "m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def quantity(text: str) -> float:
    """The number: bytes, cores or pieces.

    Raises:
        ValueError: not a quantity, or in a unit that no manifest here uses.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", text)
    if match is None or match[2] not in _FACTORS:
        raise ValueError(f"not a quantity: {text!r}")
    return float(match[1]) * _FACTORS[match[2]]
