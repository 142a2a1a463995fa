"""The asynchronous client."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Self

from longspan.client import _events, _requests
from longspan.client._aio_cache import AsyncCache
from longspan.client._aio_reading import reading
from longspan.client._aio_sending import AsyncSending
from longspan.client._aio_sources import open_async_source
from longspan.client._aio_stream import AsyncAnswerStream, analyzing, generating
from longspan.client._aio_wire import AsyncWire
from longspan.client._config import RetryPolicy, Timeout
from longspan.client._credentials import Tls, call_metadata, channel_credentials
from longspan.client._deadline import Deadline
from longspan.client._exceptions import ClientClosed, DeadlineExceeded, ServerUnavailable
from longspan.client._generation import Generation
from longspan.client._health import REQUEST, is_serving
from longspan.client._lifecycle import ClientState
from longspan.client._requests import Documents, Heading, UploadEnvelope
from longspan.client._sources import AsyncSource
from longspan.client._tasks import (
    Ask,
    CacheMode,
    CacheModeName,
    MethodName,
    Priority,
    Prompt,
    Summarize,
    Task,
)
from longspan.client._transcript import Transcript
from longspan.client._types import Document, Progress, Span
from longspan.v1 import document_service_pb2 as pb

if TYPE_CHECKING:
    import grpc

PAGE_SIZE = 100


class AsyncClient:
    """Talks to one server over one connection.

    ::

        async with AsyncClient("localhost:50051") as client:
            document = await client.upload("annual-report.md")
            async with client.ask(document, "Which risks are new?") as stream:
                answer = await stream.result()

    Args:
        target: host and port.
        timeout: for every call.
        retry: for every call.
        tls: True checks the server by the authorities that gRPC knows; ``Tls`` names files.
        api_key: an API key, or a signed token, sent with every call.
        plaintext_key: send it to another machine without TLS too.
        credentials: gRPC's own, instead of ``tls``; without either the connection is plain text.
        metadata: sent with every call, such as a tenant.

    Raises:
        PlaintextKey: the key would cross a network unencrypted.
        ValueError: the key is malformed, or arguments exclude each other.
        OSError: a file of ``tls`` cannot be read.
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        timeout: Timeout | None = None,
        retry: RetryPolicy | None = None,
        tls: Tls | bool = False,
        api_key: str | None = None,
        plaintext_key: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        # First of all, because what fails here has nothing to close.
        self._state = ClientState.UNOPENED
        self._target = target
        self._timeout = timeout or Timeout()
        self._retry = retry or RetryPolicy()
        self._credentials = channel_credentials(tls, credentials)
        encrypted = self._credentials is not None
        self._metadata = call_metadata(
            target, metadata, api_key, may_show_key=encrypted or plaintext_key
        )
        self._opened_wire: AsyncWire | None = None

    def __repr__(self) -> str:
        return f"<AsyncClient {self._target} {self._state.value}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if self._state is ClientState.OPENED:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

    async def close(self) -> None:
        """Close the connection; running calls end. May be called again."""
        self._state = ClientState.CLOSED
        if self._opened_wire is not None:
            await self._opened_wire.close()

    async def upload(
        self,
        source: AsyncSource,
        *,
        title: str | None = None,
        media_type: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Document:
        """Send one document and wait until it is stored and indexed.

        Args:
            source: a path (read by its suffix), bytes, a binary file, or an (asynchronous)
                iterable of bytes; text is UTF-8.
            title: None takes the file's name.
            media_type: "text/plain" or "text/markdown"; None goes by the suffix.
            on_progress: called with each report of the server.

        Raises:
            LongspanError: the server refused it, or cannot be reached.
            OSError: the file cannot be read.
        """
        reader = await open_async_source(source)
        try:
            envelope = UploadEnvelope(Heading.of(reader, title, media_type))
            sending = AsyncSending(self._wire, self._wire.documents.Upload, envelope, reader)
            async with aclosing(sending.messages()) as messages:
                async for message in messages:
                    if isinstance(message, Progress) and on_progress is not None:
                        on_progress(message)
                    if isinstance(message, _events.Stored):
                        return message.document
        finally:
            await reader.close()
        raise AssertionError("an upload ends with Stored or an error")

    async def get(self, document: str | Document) -> Document:
        """Describe one document.

        Raises:
            DocumentMissing: there is none of this id.
        """
        wire = self._wire
        request = pb.GetDocumentRequest(document_id=_requests.document_id(document))
        response = await wire.retrying(
            lambda deadline: wire.unary(wire.documents.GetDocument, request, deadline)
        )
        return _events.document(response.document)

    async def list(self) -> AsyncIterator[Document]:
        """All documents, newest first."""
        wire, token = self._wire, ""
        while True:
            request = pb.ListDocumentsRequest(page_size=PAGE_SIZE, page_token=token)
            page = await wire.retrying(_listing(wire, request))
            for document in page.documents:
                yield _events.document(document)
            token = page.next_page_token
            if not token:
                return

    async def delete(self, document: str | Document) -> None:
        """Delete one document and everything derived from it.

        Raises:
            DocumentMissing: there is none of this id.
        """
        wire = self._wire
        request = pb.DeleteDocumentRequest(document_id=_requests.document_id(document))
        await wire.retrying(
            lambda deadline: wire.unary(wire.documents.DeleteDocument, request, deadline)
        )

    async def read(self, document: str | Document, span: Span | None = None) -> bytes:
        """The bytes of a document, or of a span of it.

        Raises:
            DocumentMissing: there is none of this id.
            InvalidRequest: the span reaches beyond the document.
        """
        return await reading(self._wire, _requests.document_id(document), span)

    def ask(
        self,
        documents: Documents,
        question: str,
        *,
        max_citations: int | None = None,
        priority: Priority | None = None,
        method: MethodName | None = None,
        generation: Generation | None = None,
        cache: CacheModeName = CacheMode.DEFAULT,
    ) -> AsyncAnswerStream:
        """Answer a question from stored documents."""
        task = Ask(question, max_citations, priority, method, generation, cache)
        return self._generate(documents, task)

    def summarize(
        self,
        documents: Documents,
        *,
        max_sentences: int | None = None,
        priority: Priority | None = None,
        method: MethodName | None = None,
        generation: Generation | None = None,
        cache: CacheModeName = CacheMode.DEFAULT,
    ) -> AsyncAnswerStream:
        """Say what matters most in stored documents."""
        return self._generate(
            documents, Summarize(max_sentences, priority, method, generation, cache)
        )

    def prompt(
        self,
        documents: Documents,
        text: str,
        *,
        priority: Priority | None = None,
        method: MethodName | None = None,
        generation: Generation | None = None,
        cache: CacheModeName = CacheMode.DEFAULT,
    ) -> AsyncAnswerStream:
        """Give stored documents and a free instruction to a decoder model."""
        return self._generate(documents, Prompt(text, priority, method, generation, cache))

    def analyze(
        self,
        source: AsyncSource,
        task: Task,
        *,
        title: str | None = None,
        media_type: str | None = None,
    ) -> AsyncAnswerStream:
        """Send one document and run one task on it, in one call; see ``upload``."""
        transcript = Transcript()
        events = analyzing(self._wire, source, task, title, media_type, transcript)
        return AsyncAnswerStream(events, transcript)

    @property
    def cache(self) -> AsyncCache:
        """What the server keeps so that it need not compute it again."""
        return AsyncCache(self._wire)

    async def health(self) -> bool:
        """Whether a server answers and serves."""
        wire = self._wire
        try:
            response = await wire.unary(wire.health, REQUEST, wire.deadline())
        except (ServerUnavailable, DeadlineExceeded):
            return False
        return is_serving(response)

    def _generate(self, documents: Documents, task: Task) -> AsyncAnswerStream:
        transcript = Transcript()
        return AsyncAnswerStream(generating(self._wire, documents, task, transcript), transcript)

    @property
    def _wire(self) -> AsyncWire:
        if self._state is ClientState.CLOSED:
            raise ClientClosed("the client is closed")
        if self._opened_wire is None:
            # Not in __init__: a channel belongs to the running event loop.
            self._opened_wire = AsyncWire(
                self._target, self._credentials, self._metadata, self._timeout, self._retry
            )
            self._state = ClientState.OPENED
        return self._opened_wire


def _listing(
    wire: AsyncWire, request: pb.ListDocumentsRequest
) -> Callable[[Deadline], Awaitable[pb.ListDocumentsResponse]]:
    return lambda deadline: wire.unary(wire.documents.ListDocuments, request, deadline)
