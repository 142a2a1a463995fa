"""The blocking client."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Self

from longspan.client import _events, _requests
from longspan.client._config import RetryPolicy, Timeout
from longspan.client._credentials import Tls, call_metadata, channel_credentials
from longspan.client._deadline import Deadline
from longspan.client._exceptions import ClientClosed, DeadlineExceeded, ServerUnavailable
from longspan.client._generation import Generation
from longspan.client._health import REQUEST, is_serving
from longspan.client._lifecycle import ClientState
from longspan.client._requests import Documents, Heading, UploadEnvelope
from longspan.client._sources import Source, open_source
from longspan.client._sync_cache import Cache
from longspan.client._sync_reading import reading
from longspan.client._sync_sending import SyncSending
from longspan.client._sync_stream import AnswerStream, analyzing, generating
from longspan.client._sync_wire import SyncWire
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


class Client:
    """Talks to one server over one connection; the same words as ``AsyncClient``, blocking.

    ::

        with Client("localhost:50051") as client:
            document = client.upload("annual-report.md")
            with client.ask(document, "Which risks are new?") as stream:
                answer = stream.result()

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
        self._opened_wire: SyncWire | None = None

    def __repr__(self) -> str:
        return f"<Client {self._target} {self._state.value}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._state is ClientState.OPENED:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

    def close(self) -> None:
        """Close the connection; running calls end. May be called again."""
        self._state = ClientState.CLOSED
        if self._opened_wire is not None:
            self._opened_wire.close()

    def upload(
        self,
        source: Source,
        *,
        title: str | None = None,
        media_type: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Document:
        """Send one document and wait until it is stored and indexed.

        Args:
            source: a path (read by its suffix), bytes, a binary file, or an
                iterable of bytes; text is UTF-8.
            title: None takes the file's name.
            media_type: "text/plain" or "text/markdown"; None goes by the suffix.
            on_progress: called with each report of the server.

        Raises:
            LongspanError: the server refused it, or cannot be reached.
            OSError: the file cannot be read.
        """
        reader = open_source(source)
        try:
            envelope = UploadEnvelope(Heading.of(reader, title, media_type))
            sending = SyncSending(self._wire, self._wire.documents.Upload, envelope, reader)
            with closing(sending.messages()) as messages:
                for message in messages:
                    if isinstance(message, Progress) and on_progress is not None:
                        on_progress(message)
                    if isinstance(message, _events.Stored):
                        return message.document
        finally:
            reader.close()
        raise AssertionError("an upload ends with Stored or an error")

    def get(self, document: str | Document) -> Document:
        """Describe one document.

        Raises:
            DocumentMissing: there is none of this id.
        """
        wire = self._wire
        request = pb.GetDocumentRequest(document_id=_requests.document_id(document))
        response = wire.retrying(
            lambda deadline: wire.unary(wire.documents.GetDocument, request, deadline)
        )
        return _events.document(response.document)

    def list(self) -> Iterator[Document]:
        """All documents, newest first."""
        wire, token = self._wire, ""
        while True:
            request = pb.ListDocumentsRequest(page_size=PAGE_SIZE, page_token=token)
            page = wire.retrying(_listing(wire, request))
            for document in page.documents:
                yield _events.document(document)
            token = page.next_page_token
            if not token:
                return

    def delete(self, document: str | Document) -> None:
        """Delete one document and everything derived from it.

        Raises:
            DocumentMissing: there is none of this id.
        """
        wire = self._wire
        request = pb.DeleteDocumentRequest(document_id=_requests.document_id(document))
        wire.retrying(lambda deadline: wire.unary(wire.documents.DeleteDocument, request, deadline))

    def read(self, document: str | Document, span: Span | None = None) -> bytes:
        """The bytes of a document, or of a span of it.

        Raises:
            DocumentMissing: there is none of this id.
            InvalidRequest: the span reaches beyond the document.
        """
        return reading(self._wire, _requests.document_id(document), span)

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
    ) -> AnswerStream:
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
    ) -> AnswerStream:
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
    ) -> AnswerStream:
        """Give stored documents and a free instruction to a decoder model."""
        return self._generate(documents, Prompt(text, priority, method, generation, cache))

    def analyze(
        self,
        source: Source,
        task: Task,
        *,
        title: str | None = None,
        media_type: str | None = None,
    ) -> AnswerStream:
        """Send one document and run one task on it, in one call; see ``upload``."""
        transcript = Transcript()
        events = analyzing(self._wire, source, task, title, media_type, transcript)
        return AnswerStream(events, transcript)

    @property
    def cache(self) -> Cache:
        """What the server keeps so that it need not compute it again."""
        return Cache(self._wire)

    def health(self) -> bool:
        """Whether a server answers and serves."""
        wire = self._wire
        try:
            response = wire.unary(wire.health, REQUEST, wire.deadline())
        except (ServerUnavailable, DeadlineExceeded):
            return False
        return is_serving(response)

    def _generate(self, documents: Documents, task: Task) -> AnswerStream:
        transcript = Transcript()
        return AnswerStream(generating(self._wire, documents, task, transcript), transcript)

    @property
    def _wire(self) -> SyncWire:
        if self._state is ClientState.CLOSED:
            raise ClientClosed("the client is closed")
        if self._opened_wire is None:
            self._opened_wire = SyncWire(
                self._target, self._credentials, self._metadata, self._timeout, self._retry
            )
            self._state = ClientState.OPENED
        return self._opened_wire


def _listing(
    wire: SyncWire, request: pb.ListDocumentsRequest
) -> Callable[[Deadline], pb.ListDocumentsResponse]:
    return lambda deadline: wire.unary(wire.documents.ListDocuments, request, deadline)
