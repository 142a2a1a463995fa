"""What a worker serves."""

from __future__ import annotations

from dataclasses import dataclass, replace

from longspan.internal.v1 import worker_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model of a worker, from its Ready event.

    Attributes:
        fingerprint: SHA-256 of the weights file.
        dimension: length of a vector.
        max_tokens: of an encoder, the largest text, special tokens included; of a decoder,
            its context.
        kv_tokens: what a decoder can hold in its KV pages at once; 0 for an encoder.
        kv_host_bytes: host memory of the pages that a policy keeps there; 0 where none does.
        attention: names of the policies that a decoder reads documents under, its default first.
        contexts: the longest sequence under each of these policies.
    """

    model: str
    fingerprint: str
    dtype: str
    dimension: int
    max_tokens: int
    device: str
    kv_tokens: int = 0
    kv_host_bytes: int = 0
    attention: tuple[str, ...] = ()
    contexts: tuple[int, ...] = ()

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
            kv_tokens=ready.kv_tokens,
            kv_host_bytes=ready.kv_host_bytes,
            attention=tuple(policy.name for policy in ready.attention),
            contexts=tuple(policy.max_tokens for policy in ready.attention),
        )

    def policy(self, name: str | None) -> str:
        """The attention policy of a request that names this one, or none.

        Empty where the worker lists none and chooses by itself.
        """
        return name or next(iter(self.attention), "")

    def context(self, policy: str) -> int:
        """The longest sequence under an attention policy, in tokens, the answer included."""
        return dict(zip(self.attention, self.contexts, strict=True)).get(policy, self.max_tokens)

    def answers_like(self, other: ModelInfo) -> bool:
        """True when one may go on where the other ended; the device may differ."""
        return self._identity == other._identity

    @property
    def _identity(self) -> tuple[object, ...]:
        # A decoder's context follows from the memory that was free when it started.
        tokens = 0 if self.kv_tokens else self.max_tokens
        return self.fingerprint, self.dimension, self.dtype, self.attention, tokens

    def least(self, other: ModelInfo) -> ModelInfo:
        """The same model, with the smaller one's sizes: what any of the workers takes."""
        contexts = zip(self.contexts, other.contexts, strict=True)
        return replace(
            self,
            max_tokens=min(self.max_tokens, other.max_tokens),
            kv_tokens=min(self.kv_tokens, other.kv_tokens),
            kv_host_bytes=min(self.kv_host_bytes, other.kv_host_bytes),
            contexts=tuple(min(pair) for pair in contexts),
        )
