"""Reads a stored document, going on where a broken stream ended."""

from __future__ import annotations

from contextlib import aclosing

from longspan.client import _requests
from longspan.client._aio_wire import AsyncWire
from longspan.client._exceptions import LongspanError
from longspan.client._fetch import Fetch
from longspan.client._types import Span


async def reading(wire: AsyncWire, document_id: str, span: Span | None) -> bytes:
    """The bytes of ``span``, or all of them.

    Raises:
        LongspanError: the document or the span does not exist, or the server cannot be reached.
    """
    fetch = Fetch(span)
    deadline, patience = wire.deadline(), wire.patience()
    while not fetch.complete:
        try:
            call = wire.documents.ReadDocument(
                _requests.read(document_id, *fetch.bounds),
                timeout=await wire.connect(deadline),
                metadata=wire.metadata,
            )
            async with aclosing(wire.receive(call)) as responses:
                async for response in responses:
                    fetch.take(response.offset, response.data)
                    patience.progressed()
            fetch.ended()
        except LongspanError as error:
            await wire.pause(patience, error)
    return fetch.data
