"""Every error has exactly one row in the table, and leaves with its details."""

from __future__ import annotations

import inspect

import pytest
from google.rpc import error_details_pb2

from longspan.server import errors
from longspan.server.services.statuses import STATUSES, fault_status, reason, to_status

ALL = [
    value
    for name, value in vars(errors).items()
    if inspect.isclass(value)
    and issubclass(value, errors.LongspanError)
    and value is not errors.LongspanError
    and not name.startswith("_")
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_error_has_a_status(error: type[errors.LongspanError]) -> None:
    assert error in STATUSES


def test_the_table_has_no_row_without_an_error() -> None:
    assert set(STATUSES) == set(ALL)


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_the_tree_in_the_docstring_names_every_error(error: type[errors.LongspanError]) -> None:
    assert f" {error.__name__}" in (errors.__doc__ or "")


def test_a_reason_is_the_name_in_capitals() -> None:
    assert reason(errors.QueueFull) == "QUEUE_FULL"
    assert reason(errors.InvalidUtf8) == "INVALID_UTF8"


def test_waiting_advice_travels_as_retry_info() -> None:
    status = to_status(errors.QueueFull("full", retry_after_s=1.5))
    advice = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(advice) for detail in status.details)
    assert advice.retry_delay.ToMilliseconds() == 1500


def test_a_bad_field_travels_as_bad_request() -> None:
    status = to_status(errors.InvalidUtf8(17))
    bad, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert any(detail.Unpack(info) for detail in status.details)
    assert bad.field_violations[0].field == "chunk.data"
    assert info.metadata["byte_offset"] == "17"


def test_a_fault_tells_an_id_and_nothing_else() -> None:
    error_id, status = fault_status()
    assert status.message == f"internal error {error_id}"
