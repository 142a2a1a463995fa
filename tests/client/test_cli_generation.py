"""Generated answers on the command line."""

from __future__ import annotations

import io
import json
import re
from collections import deque
from pathlib import Path

import pytest
from rich.console import Console

from longspan.client import (
    Completed,
    FinishReason,
    Progress,
    Reasoning,
    Stage,
    TextDelta,
    Timings,
    Usage,
)
from longspan.client._cli.bars import Bars
from longspan.client._cli.plain_text import PlainText
from longspan.v1 import inference_service_pb2 as inference
from tests.client.command import longspan
from tests.client.peer import (
    citation,
    delta,
    generated,
    prefilling,
    reasoning,
    running_peer,
    unverified,
)

SCHEMA = '{"type": "object"}'
ANSWER = [
    prefilling(100, 40, cached=32, ahead=2),
    reasoning("Let me see.\x1b[31m"),
    delta("It says “yes” and “perhaps”."),
    citation(1, "yes"),
    unverified("per\nhaps"),
]
FIGURES = (
    "8,200 tokens read, 8,000 of them cached; 60 written; "
    "first text 0.31 s after the last byte, then 25.0 ms a token\n"
)


async def test_every_option_reaches_the_server(tmp_path: Path) -> None:
    """Each option of the command line stands in the task, the schema read from its file."""
    path = tmp_path / "schema.json"
    path.write_text(SCHEMA, "utf-8")
    options = ["--max-tokens", "64", "--temperature", "0.5", "--top-k", "40", "--top-p", "0.75"]
    options += ["--min-p", "0.25", "--seed", "7", "--stop", "END", "--stop", "\n\n", "--generative"]
    options += ["--attention", "hybrid"]
    async with running_peer() as (peer, target):
        done = await longspan(
            "prompt", "-", "Do.", *options, "--json-schema", str(path), server=target, stdin=b"x"
        )
        assert (done.status, done.err) == (0, "")
        [task] = peer.tasks
        sent = task.generation
        assert (task.prompt.text, task.method) == ("Do.", inference.METHOD_GENERATIVE)
        assert (sent.max_tokens, sent.temperature, sent.top_k, sent.seed) == (64, 0.5, 40, 7)
        assert (sent.top_p, sent.min_p, sent.json_schema) == (0.75, 0.25, SCHEMA)
        assert [one.text for one in sent.stop] == ["END", "\n\n"]
        assert sent.attention == "hybrid"


async def test_the_method_and_an_expression_are_asked_for_of_stored_documents() -> None:
    """--extractive, --regex and a schema as JSON go with every command that answers."""
    async with running_peer() as (peer, target):
        stored = peer.add(b"text")
        await longspan("summarize", stored, "--extractive", server=target)
        await longspan("ask", stored, "Why?", "--regex", "a*", server=target)
        await longspan("ask", stored, "Why?", "--json-schema", SCHEMA, server=target)
        extractive, regex, schema = peer.tasks
        assert extractive.method == inference.METHOD_EXTRACTIVE
        assert (regex.method, regex.generation.regex) == (inference.METHOD_UNSPECIFIED, "a*")
        assert schema.generation.json_schema == SCHEMA


async def test_an_answer_is_shown_with_its_reasoning_its_quotations_and_its_figures() -> None:
    """The answer alone is on standard output; unverified quotations are marked there."""
    async with running_peer() as (peer, target):
        peer.script.answers = deque([ANSWER])
        peer.script.completed = generated()
        done = await longspan("ask", "-", "Sure?", "--reasoning", server=target, stdin=b"x")
        assert done.status == 0
        assert done.out == (
            'It says “yes” and “perhaps”.\n[1] bytes 0–3  "yes"\n[?] in no document  "per haps"\n'
        )
        assert done.err == f"Let me see.[31m\n\n{FIGURES}"


async def test_reasoning_and_figures_can_be_left_out_and_a_cut_answer_is_said() -> None:
    """Without --reasoning there is none, with -q no figures, but the cut is always told."""
    async with running_peer() as (peer, target):
        peer.script.answers = deque([ANSWER])
        peer.script.completed = generated(finish_reason=inference.FINISH_REASON_LENGTH)
        done = await longspan("ask", "-", "Sure?", "-q", server=target, stdin=b"x")
        assert done.err.startswith("longspan: the answer was cut off")
        assert done.err.count("\n") == 1


async def test_json_has_a_line_for_every_event() -> None:
    """Programs get reasoning, unverified quotations, prefill and figures by name."""
    async with running_peer() as (peer, target):
        peer.script.answers = deque([ANSWER])
        peer.script.completed = generated()
        done = await longspan("ask", "-", "Sure?", "--json", server=target, stdin=b"x")
        kinds = [event["event"] for event in done.events]
        assert kinds == [
            *("progress", "progress", "reasoning", "delta"),
            *("citation", "unverified", "completed"),
        ]
        assert done.events[1]["stage"] == "prefilling"
        assert (done.events[1]["tokens_prefilled"], done.events[1]["tokens_cached"]) == (40, 32)
        assert done.events[5]["quote"] == "per\nhaps"
        assert done.events[-1]["usage"]["output_tokens"] == 60
        assert done.events[-1]["timings"]["per_token_s"] == pytest.approx(0.025)
        assert json.loads(done.out.splitlines()[2])["text"] == "Let me see.\x1b[31m"


async def test_the_policy_and_what_it_did_are_shown() -> None:
    """For people behind the figures, for programs by name; null where nothing was told."""
    async with running_peer() as (peer, target):
        peer.script.answers = deque([ANSWER] * 3)
        peer.script.completed = generated(
            attention=inference.AttentionUsage(
                policy="hybrid\x1b", kv_bytes=3 << 29, seen_share=0.1234
            )
        )
        people = await longspan("ask", "-", "Sure?", server=target, stdin=b"x")
        assert people.err.endswith(
            "25.0 ms a token; hybrid attention saw 12.3% of the keys and held 1,536.0 MiB\n"
        )
        programs = await longspan("ask", "-", "Sure?", "--json", server=target, stdin=b"x")
        assert programs.events[-1]["attention"] == {
            "policy": "hybrid\x1b",
            "kv_bytes": 3 << 29,
            "seen_share": pytest.approx(0.1234),
        }
        peer.script.completed = generated()
        silent = await longspan("ask", "-", "Sure?", "--json", server=target, stdin=b"x")
        assert silent.events[-1]["attention"] is None


STYLES = re.compile(r"\x1b\[\d*m")


def terminal() -> tuple[Console, io.StringIO]:
    """A console that believes it is a terminal, and what it shows."""
    screen = io.StringIO()
    return Console(file=screen, force_terminal=True, width=100), screen


def test_bars_show_the_upload_and_then_the_prefill() -> None:
    """A bar appears with the first thing on it; waiting and reuse are told beside it."""
    console, screen = terminal()
    bars = Bars(console)
    bars.show(Progress(stage=Stage.UPLOADING, bytes_received=10, bytes_total=40))
    bars.stop()
    assert "upload" in screen.getvalue()
    assert "prefill" not in screen.getvalue()
    bars.show(
        Progress(
            stage=Stage.PREFILLING,
            bytes_received=40,
            bytes_total=40,
            tokens=100,
            tokens_prefilled=64,
            tokens_cached=32,
            queue_position=2,
        )
    )
    bars.stop()
    assert "64/100 tokens, 32 cached, 2 ahead in the queue" in STYLES.sub("", screen.getvalue())


def test_bars_do_not_come_back_once_the_answer_has_begun() -> None:
    """Reports of progress go on while words arrive, and must not be drawn among them."""
    console, screen = terminal()
    shown = PlainText(io.StringIO(), console, Bars(console), brief=False, reasoning=True)
    with shown:
        shown.event(Progress(stage=Stage.PREFILLING, tokens=10, tokens_prefilled=10))
        shown.event(TextDelta("Yes"))
        before = len(screen.getvalue())
        shown.event(Progress(stage=Stage.ANSWERING, tokens=10, tokens_prefilled=10))
        assert len(screen.getvalue()) == before


def test_reasoning_is_dim_on_a_terminal() -> None:
    """A reader tells what is thought from what is answered."""
    console, screen = terminal()
    with PlainText(io.StringIO(), console, None, brief=False, reasoning=True) as shown:
        shown.event(Reasoning("Hm"))
    assert "\x1b[2mHm\x1b[0m" in screen.getvalue()


def test_an_extractive_answer_has_no_figures_of_a_decoder() -> None:
    """Nothing is said of tokens that nobody wrote."""
    console, screen = terminal()
    with PlainText(io.StringIO(), console, None, brief=False, reasoning=False) as shown:
        shown.event(
            Completed(
                finish_reason=FinishReason.STOP,
                usage=Usage(document_tokens=9, cached_tokens=0, task_tokens=1, retries=0),
                timings=Timings(upload_s=0, first_delta_s=0, total_s=0),
                documents=(),
                model="m",
            )
        )
    assert screen.getvalue() == ""
