"""Log records as lines: parseable whatever is in them, with the ids of their call."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from longspan.server.current_call import CurrentCall, entered
from longspan.server.logs.access import log_access
from longspan.server.logs.context import CallFilter
from longspan.server.logs.formats import (
    EXCEPTION_CHARS,
    MESSAGE_CHARS,
    JsonFormatter,
    TextFormatter,
)
from longspan.server.pool.stderr_line import parse_line
from longspan.server.pool.stderr_tail import StderrTail
from longspan.worker.logs import LineFormatter

CALL = CurrentCall(request_id="req_1", method="longspan.v1.InferenceService/Generate", tenant="a")
SPAN = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))


def _logger(formatter: logging.Formatter) -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.addFilter(CallFilter())
    logger = logging.Logger("longspan.test", logging.DEBUG)
    logger.addHandler(handler)
    return logger, stream


def _json(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_which_call_it_belongs_to() -> None:
    logger, stream = _logger(JsonFormatter())
    with entered(CALL), use_span(SPAN):
        logger.warning("%d pages", 3, extra={"error_id": "e1"})
    logger.info("outside")
    inside, outside = _json(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", inside.pop("time"))
    assert inside == {
        "level": "WARNING",
        "logger": "longspan.test",
        "message": "3 pages",
        "trace_id": f"{0xABC:032x}",
        "span_id": f"{0xDEF:016x}",
        "request_id": "req_1",
        "tenant": "a",
        "method": CALL.method,
        "error_id": "e1",
    }
    assert outside.keys() == {"time", "level", "logger", "message"}


def test_an_exception_is_a_field() -> None:
    logger, stream = _logger(JsonFormatter())
    try:
        raise ValueError("x" * 2 * EXCEPTION_CHARS)
    except ValueError:
        logger.exception("failed")
    [entry] = _json(stream)
    assert entry["message"] == "failed"
    assert len(entry["exception"]) == EXCEPTION_CHARS


@settings(max_examples=50)
@given(st.text(max_size=50), st.text(max_size=50))
def test_any_text_is_one_line_of_ascii(message: str, tenant: str) -> None:
    logger, stream = _logger(JsonFormatter())
    with entered(CurrentCall(request_id="r", method="m", tenant=tenant)):
        logger.info("%s", message)
    assert stream.getvalue().isascii()
    [entry] = _json(stream)
    assert entry["message"] == message
    assert entry.get("tenant", "") == tenant


def test_a_long_message_is_cut() -> None:
    logger, stream = _logger(JsonFormatter())
    logger.info("%s", "x" * 2 * MESSAGE_CHARS)
    [entry] = _json(stream)
    assert len(entry["message"]) == MESSAGE_CHARS + 3


def test_lines_of_text_name_the_request() -> None:
    logger, stream = _logger(TextFormatter())
    with entered(CALL):
        logger.info("said")
    logger.info("said")
    inside, outside = stream.getvalue().splitlines()
    assert inside.endswith("INFO longspan.test said [req_1]")
    assert outside.endswith("INFO longspan.test said")


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, "longspan.access"):
        yield caplog


@pytest.mark.parametrize(
    ("method", "code", "level"),
    [
        ("InferenceService/Analyze", grpc.StatusCode.OK, logging.INFO),
        ("InferenceService/Generate", grpc.StatusCode.INVALID_ARGUMENT, logging.INFO),
        ("DocumentService/GetDocument", grpc.StatusCode.OK, logging.DEBUG),
        ("DocumentService/GetDocument", grpc.StatusCode.NOT_FOUND, logging.DEBUG),
        ("DocumentService/GetDocument", grpc.StatusCode.INTERNAL, logging.INFO),
    ],
)
def test_long_tasks_and_faults_are_told_at_info(
    access: pytest.LogCaptureFixture, method: str, code: grpc.StatusCode, level: int
) -> None:
    call = CurrentCall(request_id="r", method=f"longspan.v1.{method}", usage={"bytes": 7})
    log_access(call, code, 1.5)
    [record] = access.records
    assert record.levelno == level
    assert record.getMessage() == f"{method.rpartition('/')[2]} {code.name} 1.500 s bytes=7"


def test_a_workers_lines_keep_level_and_logger() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter())
    logger = logging.Logger("longspan.worker.engine", logging.DEBUG)
    logger.addHandler(handler)
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("a step\nfailed")
    lines = [parse_line(line) for line in stream.getvalue().splitlines()]
    assert {(line.level, line.logger) for line in lines} == {(logging.ERROR, logger.name)}
    assert [lines[0].message, lines[1].message] == ["a step", "failed"]
    assert lines[-1].message == "ValueError: bad"


def test_any_other_line_of_a_worker_is_information() -> None:
    assert parse_line("Traceback (most recent call last):") == (
        logging.INFO,
        "",
        "Traceback (most recent call last):",
    )


def test_chatter_explains_no_death() -> None:
    tail = StderrTail()
    tail.feed(b"ERROR longspan.worker: no memory\nINFO longspan.worker: stopping\n")
    assert tail.last() == "ERROR longspan.worker: no memory"


@given(st.text())
@settings(max_examples=50)
def test_any_text_is_one_visible_line_for_people(text: str) -> None:
    logger, stream = _logger(TextFormatter())
    logger.warning("%s", f"{text}\n\x1b[31m\x9b2J\u2028")
    [line, end] = stream.getvalue().split("\n")
    assert end == ""
    assert line.isprintable()
    assert line.endswith("\\n\\x1b[31m\\x9b2J\\u2028")


def test_an_exception_keeps_its_lines_and_shows_what_is_in_them() -> None:
    logger, stream = _logger(TextFormatter())
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        logger.exception("failed")
    first, *traceback, last, _ = stream.getvalue().split("\n")
    assert first.endswith("failed")
    assert traceback[0].startswith("Traceback")
    assert last == "ValueError: \\x1b[2J"
