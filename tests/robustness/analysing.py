"""One Analyze stream, driven by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import analyze_header, chunks, commit

PACE_S = 0.005
"""Between chunks: the text arrives while it is read."""


class Analysing:
    """Sends a document with its question; may be left in the middle.

    Attributes:
        upload_id: from Accepted.
        sent: end of the last chunk that was sent.
        acknowledged: bytes that the server said it keeps.
        prefilled: most tokens of the prompt that the decoder was said to have read.
        text: of the answer so far.
        completed: the end, once there is one.
    """

    def __init__(self, stub: Any, task: pb.Task, metadata: Any = None) -> None:
        self.call = stub.Analyze(metadata=metadata)
        self._task = task
        self.upload_id = ""
        self.sent = self.acknowledged = self.prefilled = 0
        self.text = ""
        self.completed: pb.Completed | None = None

    async def open(self, upload_id: str = "") -> None:
        """Begin a new upload, or go on with one."""
        await self.call.write(analyze_header(self._task, upload_id))
        while not self.upload_id:
            await self._hear()
        self.sent = self.acknowledged

    async def send(self, data: bytes, end: int, chunk_bytes: int) -> None:
        """Send ``data`` from where the stream is to ``end``."""
        for chunk in chunks(data[:end], chunk_bytes, self.sent):
            await self.call.write(pb.AnalyzeRequest(chunk=chunk))
            self.sent += len(chunk.data)
            await asyncio.sleep(PACE_S)

    async def settle(self) -> int:
        """Wait until all that was sent is acknowledged; tokens read by then."""
        while self.acknowledged < self.sent:
            await self._hear()
        # Progress follows the acknowledgement at once.
        while await self._hear() != "progress":
            pass
        return self.prefilled

    async def finish(self, data: bytes) -> pb.Completed:
        """Commit, and hear the answer."""
        await self.call.write(pb.AnalyzeRequest(commit=commit(data)))
        while await self._hear():
            pass
        assert self.completed is not None
        return self.completed

    async def _hear(self) -> str | None:
        """Take one event; its kind, None at the end."""
        event = await self.call.read()
        if event is grpc.aio.EOF:
            return None
        assert self.completed is None, "an event after Completed"
        kind: str = event.WhichOneof("event")
        match kind:
            case "accepted":
                self.upload_id = event.accepted.upload_id
                self.acknowledged = event.accepted.committed_bytes
            case "ack":
                self.acknowledged = event.ack.committed_bytes
            case "progress":
                self.prefilled = max(self.prefilled, event.progress.tokens_prefilled)
            case "delta":
                self.text += event.delta.text
            case "completed":
                self.completed = event.completed
        return kind
