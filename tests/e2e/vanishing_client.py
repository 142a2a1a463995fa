"""A client process that takes a call to some phase and then waits to be killed.

Usage: python -m tests.e2e.vanishing_client TARGET PHASE FILE [DOCUMENT_ID]
It prints "upload ID" and "stage N" as it hears of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from longspan.v1 import inference_service_pb2 as inference
from longspan.v1 import inference_service_pb2_grpc
from tests.e2e.conversation import analyze_messages, ask

PATIENCE_S = 120.0
TASK = ask("How quickly must a security incident be notified?")


def phase_messages(phase: str, data: bytes) -> list[inference.AnalyzeRequest]:
    """What a client has sent by the time it falls silent in ``phase``."""
    messages = list(analyze_messages(data, TASK, 8000))
    return {"first": [], "upload": messages[:-2]}.get(phase, messages)


def generate_request(document_id: str) -> inference.GenerateRequest:
    """A question about a stored document."""
    return inference.GenerateRequest(document_ids=[document_id], task=TASK)


def _then_silence(messages: list[Any]) -> Iterator[Any]:
    yield from messages
    time.sleep(PATIENCE_S)


def main() -> None:
    """Run until killed."""
    target, phase, path, *document_ids = sys.argv[1:]
    stub: Any = inference_service_pb2_grpc.InferenceServiceStub(grpc.insecure_channel(target))
    if document_ids:
        events = stub.Generate(generate_request(document_ids[0]))
    else:
        events = stub.Analyze(_then_silence(phase_messages(phase, Path(path).read_bytes())))
    for event in events:
        kind = event.WhichOneof("event")
        if kind == "accepted":
            print("upload", event.accepted.upload_id, flush=True)
        elif kind == "progress":
            print("stage", event.progress.stage, flush=True)


if __name__ == "__main__":
    main()
