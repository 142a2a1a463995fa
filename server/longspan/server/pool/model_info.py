"""What a worker serves."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.internal.v1 import worker_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model of a worker, from its Ready event.

    Attributes:
        fingerprint: SHA-256 of the weights file.
        dimension: length of a vector.
        max_tokens: largest text, special tokens included.
    """

    model: str
    fingerprint: str
    dtype: str
    dimension: int
    max_tokens: int
    device: str

    @classmethod
    def of(cls, ready: pb.Ready) -> ModelInfo:
        """The model that a Ready event names."""
        return cls(
            model=ready.model,
            fingerprint=ready.fingerprint,
            dtype=ready.dtype,
            dimension=ready.dimension,
            max_tokens=ready.max_tokens,
            device=ready.device,
        )

    def gives_same_vectors(self, other: ModelInfo) -> bool:
        """True when vectors of the two may be compared; the device may differ."""
        mine = (self.fingerprint, self.dimension, self.dtype)
        return mine == (other.fingerprint, other.dimension, other.dtype)
