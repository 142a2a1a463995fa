"""Jobs as the worker protocol has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.errors import EncodeFailed
from longspan.server.queue.job import JobId

# Bounds on one job that keep its command and its answer far below the message limit.
MAX_TEXTS = 256
MAX_TOKENS = 256 * 1024


def text_bytes(texts: Sequence[NDArray[np.uint32]]) -> tuple[bytes, ...]:
    """Token ids as little-endian uint32, one entry a text.

    Raises:
        ValueError: no text, or more than one job may hold.
    """
    tokens = sum(text.size for text in texts)
    if not 1 <= len(texts) <= MAX_TEXTS or tokens > MAX_TOKENS:
        raise ValueError(
            f"a job holds 1 to {MAX_TEXTS} texts and {MAX_TOKENS} tokens, "
            f"not {len(texts)} texts and {tokens} tokens"
        )
    return tuple(text.astype("<u4").tobytes() for text in texts)


def encode_command(job_id: JobId, texts: Sequence[bytes], max_wait_ms: int) -> pb.ExecuteRequest:
    """The command that embeds the texts."""
    return pb.ExecuteRequest(encode=pb.Encode(job_id=job_id, texts=texts, max_wait_ms=max_wait_ms))


def cancel_command(job_id: JobId) -> pb.ExecuteRequest:
    """The command that forgets a job."""
    return pb.ExecuteRequest(cancel=pb.Cancel(job_id=job_id))


def vectors_of(encoded: pb.Encoded, *, texts: int, dimension: int) -> NDArray[np.float32]:
    """The vectors, ``[texts, dimension]``, read-only.

    Raises:
        EncodeFailed: the worker sent another number of bytes.
    """
    expected_bytes = texts * dimension * 4
    if len(encoded.vectors) != expected_bytes:
        raise EncodeFailed(f"{len(encoded.vectors)} bytes of vectors, not {expected_bytes}")
    vectors = np.frombuffer(encoded.vectors, dtype="<f4").reshape(texts, dimension)
    return vectors.astype(np.float32, copy=False)
