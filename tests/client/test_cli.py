"""The command, as a process of its own."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from pathlib import Path

import psutil
import pytest

from longspan.server import errors
from tests.client.command import longspan, start
from tests.client.peer import Hang, citation, delta, running_peer

ANSWER = [delta("Yes.\n"), citation(1, "plain\ntext\x1b[31m"), delta("Indeed.")]


async def test_a_file_is_uploaded_and_asked_in_one_call(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("plain text", "utf-8")
    async with running_peer() as (peer, target):
        peer.script.answers = deque([ANSWER])
        done = await longspan("ask", str(path), "Really?", "--citations", "4", server=target)
        assert (done.status, done.err) == (0, "")
        assert done.out == 'Yes.\nIndeed.\n[1] bytes 0–15  "plain text[31m"\n'
        assert peer.calls == ["Analyze"]
        assert peer.tasks[0].ask.question == "Really?"
        assert peer.tasks[0].ask.max_citations == 4


async def test_json_is_one_object_a_line_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("plain text", "utf-8")
    async with running_peer() as (peer, target):
        peer.script.answers = deque([ANSWER])
        stored = peer.add(b"stored")
        done = await longspan("ask", str(path), stored, "Really?", "--json", "--server", target)
        assert done.status == 0
        kinds = [event["event"] for event in done.events]
        assert kinds == ["progress", "delta", "citation", "delta", "completed"]
        assert done.events[2]["span"] == {"start": 0, "end": 15}
        assert done.events[-1]["finish_reason"] == "stop"
        assert peer.calls == ["Upload", "Generate"]


async def test_documents_are_stored_listed_shown_read_and_removed() -> None:
    async with running_peer() as (_, target):
        stored = await longspan(
            "upload", "-", "--title", "t", "-q", server=target, stdin=b"0123456"
        )
        document_id = stored.out.strip()
        listed = await longspan("docs", "--json", server=target)
        assert [one["document_id"] for one in listed.events] == [document_id]
        shown = await longspan("docs", "show", document_id, server=target)
        assert "size_bytes:  7\n" in shown.out
        read = await longspan("docs", "read", document_id, "--span", "2:5", server=target)
        assert read.out == "234"
        removed = await longspan("docs", "rm", document_id, "--json", server=target)
        assert removed.events == [{"event": "deleted", "document_id": document_id}]
        again = await longspan("docs", "show", document_id, server=target)
        assert (again.status, again.err) == (1, f"longspan: no document {document_id}\n")


async def test_errors_are_one_line_and_status_1(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF")
    async with running_peer() as (peer, target):
        peer.script.failures = deque([errors.DecoderRequired("no decoder is loaded")])
        refused = await longspan("prompt", "doc_1", "Do.", server=target)
        assert (refused.status, refused.out) == (1, "")
        assert refused.err == "longspan: no decoder is loaded\n"
        unread = await longspan("upload", str(path), server=target)
        assert (unread.status, unread.err.count("\n")) == (1, 1)
        assert "only .txt, .md" in unread.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "only-a-question"],
        ["ask", "missing.txt", "Why?"],
        ["docs", "show"],
        ["docs", "read", "doc", "--span", "5:2"],
        ["summarize", "doc", "--data-dir", "x"],
        ["ask", "doc", "Why?", "--model", "folder"],
        ["ask", "doc", "Why?", "--json-schema", "{}", "--regex", "a"],
        ["ask", "doc", "Why?", "--json-schema", "no-such-file.json"],
        ["ask", "doc", "Why?", "--json-schema", "{no json"],
        ["ask", "doc", "Why?", "--seed", "-1"],
        ["unknown"],
    ],
)
async def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    done = await longspan(*arguments)
    assert (done.status, done.out) == (2, "")


async def _interrupted() -> tuple[int | None, bytes, bytes]:
    async with running_peer() as (peer, target):
        peer.script.answer_failures = deque([(0, Hang())])
        process = await start("summarize", peer.add(b"x"), "--json", server=target)
        # Once a report was printed: interrupted while it opens a call, grpc does not close.
        assert process.stdout is not None
        assert b"progress" in await asyncio.wait_for(process.stdout.readline(), 20)
        await asyncio.wait_for(peer.hanging.wait(), 20)
        process.send_signal(signal.SIGINT)
        try:
            out, err = await asyncio.wait_for(process.communicate(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()
            return None, b"", b""
        await asyncio.wait_for(peer.cancelled.wait(), 5)
        return process.returncode, out, err


async def test_ctrl_c_cancels_the_call_and_is_status_130() -> None:
    """Closing a grpc channel hangs once in a while when it is interrupted: then once more."""
    ended = await _interrupted()
    if ended[0] is None:
        ended = await _interrupted()
    assert ended == (130, b"", b"")


async def test_serve_hands_its_arguments_over_unchanged() -> None:
    helped = await longspan("serve", "--help")
    assert (helped.status, helped.out.startswith("usage: longspan serve")) == (0, True)
    wrong = await longspan("serve", "--workers", "-3")
    assert wrong.status == 2
    assert "workers" in wrong.err


def servers_on(data_dir: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if {str(data_dir), "longspan.server"} <= set(process.info["cmdline"] or [])
    ]


async def test_local_starts_a_server_that_keeps_its_documents_and_stops(tmp_path: Path) -> None:
    local = ("--local", "--data-dir", str(tmp_path), "-q")
    stored = await longspan("upload", "-", *local, encoder="none", stdin=b"kept")
    assert stored.status == 0, stored.err
    listed = await longspan("docs", *local, encoder="none")
    assert listed.out == stored.out
    assert not servers_on(tmp_path)


async def test_a_terminated_command_takes_its_local_server_along(tmp_path: Path) -> None:
    process = await start("upload", "-", "--local", "--data-dir", str(tmp_path), encoder="none")
    for _ in range(400):
        await asyncio.sleep(0.05)
        if servers_on(tmp_path):
            break
    # Not while the process is being made: then there is nothing to take along yet.
    await asyncio.sleep(0.5)
    process.terminate()
    await process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert not servers_on(tmp_path)


async def test_a_local_server_that_cannot_start_says_why() -> None:
    done = await longspan("docs", "--local", encoder="/no/such/encoder")
    assert done.status == 1
    assert done.err.startswith("longspan: the local server ended with status")
    assert done.err.count("\n") == 1


async def test_a_local_server_loads_the_model_that_is_named() -> None:
    """What the server says of the model reaches the one who named it."""
    done = await longspan("docs", "--local", "--model", "no/such/folder", encoder="none")
    assert done.status == 1
    assert done.err.startswith("longspan: the local server ended with status")
    assert "no/such/folder" in done.err
