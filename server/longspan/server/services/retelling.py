"""The end of an answer, told to another caller than the one it was made for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from longspan.server.services import translate
from longspan.server.services.conversation import Clock
from longspan.v1 import document_pb2
from longspan.v1 import inference_service_pb2 as pb


def retold(
    completed: pb.Completed,
    documents: Sequence[document_pb2.Document],
    use: pb.CacheUse,
    clock: Clock,
    now_s: float,
) -> pb.Completed:
    """The same end, but for what is this request's own: its times, its costs, its documents.

    Args:
        documents: as they are stored now.
        clock: of this request, on the clock of ``now_s``.
    """
    told = pb.Completed()
    told.CopyFrom(completed)
    told.cache.CopyFrom(use)
    told.usage.retries = 0
    # Nothing was read again.
    told.usage.cached_tokens = told.usage.document_tokens
    told.timings.CopyFrom(
        pb.Timings(
            upload=translate.duration(clock.last_byte_s - clock.arrived_s),
            first_delta=translate.duration((clock.first_delta_s or now_s) - clock.last_byte_s),
            total=translate.duration(now_s - clock.arrived_s),
        )
    )
    if told.HasField("attention"):
        told.attention.kv_bytes = 0
    counted = {one.document_id: one.tokens for one in completed.documents}
    del told.documents[:]
    for document in documents:
        document.tokens = counted.get(document.document_id, document.tokens)
        told.documents.append(document)
    return told
