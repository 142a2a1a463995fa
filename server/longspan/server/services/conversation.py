"""What the two ways of answering share: one call's parts, and when things happened."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from longspan.server.errors import InvalidRequest
from longspan.server.identity import DocumentId
from longspan.server.queue.job import Priority
from longspan.server.queue.request import RequestStats
from longspan.server.services.admission import Call
from longspan.server.services.application import Application
from longspan.server.services.progressing import Progressing
from longspan.server.services.wire import Outgoing
from longspan.server.store.records import StoredDocument
from longspan.server.tasks.task import Task
from longspan.v1 import inference_service_pb2 as pb


@dataclass(slots=True)
class Clock:
    """When things happened, on the event loop's clock, in seconds."""

    arrived_s: float
    last_byte_s: float
    first_delta_s: float

    @classmethod
    def started(cls, arrived_s: float) -> Clock:
        """Nothing but the request has come."""
        return cls(arrived_s, arrived_s, 0.0)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One call's parts.

    Attributes:
        message: the task as the client sent it, and
        task: as it was understood.
    """

    call: Call
    outbox: Outgoing
    progress: Progressing
    clock: Clock
    stats: RequestStats
    priority: Priority
    message: pb.Task
    task: Task


async def named_documents(
    app: Application, talk: Conversation, request: pb.GenerateRequest
) -> Sequence[StoredDocument]:
    """The stored documents that a request names.

    Raises:
        DocumentMissing: the caller has no such document.
    """
    ids = [DocumentId(document_id) for document_id in request.document_ids]
    return [await app.library.document(talk.call.tenant, document_id) for document_id in ids]


def check_document_ids(app: Application, request: pb.GenerateRequest) -> None:
    """Refuse too many documents, none, or one twice.

    Raises:
        InvalidRequest: as it says.
    """
    ids, limit = request.document_ids, app.limits.documents_per_request
    if not 1 <= len(ids) <= limit or len(set(ids)) < len(ids):
        raise InvalidRequest(f"name 1 to {limit} different documents", field="document_ids")


def now_s() -> float:
    """The event loop's clock."""
    return asyncio.get_running_loop().time()
