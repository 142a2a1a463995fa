"""The feature maps that a worker serves a model's linear far states with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from longspan.worker.attention.linear.hedgehog import Hedgehog
from longspan.worker.attention.linear.maps_file import (
    BadMapsFile,
    MapsFile,
    digest,
    parse_maps,
    read_bytes,
)
from longspan.worker.failures import StartFailure
from longspan.worker.models.probe import LayerShape

OPTION = "--attention-maps"


@dataclass(frozen=True, slots=True, eq=False)
class ServedMaps:
    """Maps that fit the model.

    Attributes:
        layers: by the layer's index; not all layers need some.
        digest: what tells them from others; part of every page's key.
    """

    layers: Mapping[int, Hedgehog]
    digest: str

    def check(self, layers: Collection[int]) -> None:
        """All of these layers must have maps.

        Raises:
            StartFailure: one of them has none.
        """
        missing = sorted(set(layers) - set(self.layers))
        if missing:
            raise StartFailure(f"the attention maps have none for layer {missing[0]}")

    def of(self, layers: Collection[int], device: torch.device) -> dict[int, Hedgehog]:
        """The maps of these layers, where they are used."""
        return {index: self.layers[index].to(device) for index in sorted(layers)}


def read_maps(path: Path, shapes: Sequence[LayerShape], fingerprint: str) -> ServedMaps:
    """The maps in a file, for a model of these layers and this fingerprint.

    Raises:
        StartFailure: it cannot be read, is malformed, or is another model's; one line.
    """
    try:
        data = read_bytes(path)
        file = parse_maps(data)
    except OSError as error:
        raise StartFailure(f"attention maps {path} cannot be read: {error}") from error
    except BadMapsFile as error:
        raise StartFailure(f"attention maps {path}: {error}") from error
    _check(path, file, shapes, fingerprint)
    return ServedMaps(file.layers, digest(data))


def _check(path: Path, file: MapsFile, shapes: Sequence[LayerShape], fingerprint: str) -> None:
    if file.fingerprint != fingerprint:
        raise StartFailure(
            f"attention maps {path}: they were distilled from another model, whose fingerprint "
            f"begins with {file.fingerprint[:12]}; this one's with {fingerprint[:12]}"
        )
    for index, maps in file.layers.items():
        if index >= len(shapes):
            raise StartFailure(f"attention maps {path}: the model has no layer {index}")
        shape, found = shapes[index], (len(maps.query_weight), *maps.key_weight.shape[:2])
        if found != (shape.heads, shape.kv_heads, shape.d):
            raise StartFailure(
                f"attention maps {path}: layer {index} is for heads, kv heads and numbers of "
                f"{found}, the model has {(shape.heads, shape.kv_heads, shape.d)}"
            )
