"""Every error of the server arrives as the exception of the same name."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import pytest

import longspan.client as client
from longspan.client import AsyncClient, RetryPolicy
from longspan.client._errors import reason_of
from longspan.server import errors
from longspan.server.auth.refusal import Refusal
from longspan.server.services.statuses import reason
from tests.client.callers import Caller
from tests.client.peer import Fault, PlainCut, running_peer

ONCE = RetryPolicy(attempts=1)
SERVER_ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type)
    and issubclass(kind, errors.LongspanError)
    and not name.startswith("_")
    and kind is not errors.LongspanError
}
RETRY_LATER = (
    *("QueueFull", "RateLimited", "DiskFull"),
    *("Unavailable", "WorkersUnavailable", "Draining"),
)
INSTANCES: Mapping[str, errors.LongspanError] = {
    "InvalidUtf8": errors.InvalidUtf8(17),
    "PromptTooLong": errors.PromptTooLong(40_000, 32_768),
    "ChunkOutOfOrder": errors.ChunkOutOfOrder(10, 20),
    "UploadIncomplete": errors.UploadIncomplete("up_1", 42),
    "QuotaExceeded": errors.QuotaExceeded("bytes", 90, 100),
}


def instance(kind: type[errors.LongspanError]) -> errors.LongspanError:
    if kind.__name__ in INSTANCES:
        return INSTANCES[kind.__name__]
    if issubclass(kind, errors.InvalidRequest):
        return kind("message", field="some.field")
    if issubclass(kind, errors.Unauthenticated):
        return kind(Refusal.WRONG_KEY)
    if kind.__name__ in RETRY_LATER:
        return kind("message", retry_after_s=1.5)  # type: ignore[call-arg]
    return kind("message")


@pytest.mark.parametrize("name", SERVER_ERRORS)
def test_the_client_has_the_exception_in_the_same_place_of_the_tree(name: str) -> None:
    mine = getattr(client, name)
    for base in SERVER_ERRORS[name].__mro__:
        if base.__name__ in SERVER_ERRORS:
            assert issubclass(mine, getattr(client, base.__name__))
    assert reason_of(name) == reason(SERVER_ERRORS[name])


async def test_every_error_arrives_by_name_with_its_details() -> None:
    async with running_peer() as (peer, target), AsyncClient(target, retry=ONCE) as caller:
        for name, kind in SERVER_ERRORS.items():
            sent = instance(kind)
            peer.script.failures = deque([sent])
            with pytest.raises(getattr(client, name)) as caught:
                await caller.get("doc")
            got = caught.value
            assert isinstance(got, client.LongspanError)
            assert type(got).__name__ == name
            assert (got.message, got.metadata) == (str(sent), sent.metadata)
            assert got.reason == reason_of(name)
            assert got.retry_after_s == getattr(sent, "retry_after_s", None)


async def test_details_are_attributes() -> None:
    async with running_peer() as (peer, target), AsyncClient(target, retry=ONCE) as caller:
        peer.script.failures = deque(INSTANCES.values())
        with pytest.raises(client.InvalidUtf8) as utf8:
            await caller.get("doc")
        assert (utf8.value.byte_offset, utf8.value.field) == (17, "chunk.data")
        with pytest.raises(client.PromptTooLong) as long:
            await caller.get("doc")
        assert (long.value.tokens, long.value.limit_tokens) == (40_000, 32_768)
        with pytest.raises(client.ChunkOutOfOrder) as order:
            await caller.get("doc")
        assert (order.value.expected, order.value.actual) == (10, 20)
        with pytest.raises(client.UploadIncomplete) as incomplete:
            await caller.get("doc")
        assert (incomplete.value.upload_id, incomplete.value.committed_bytes) == ("up_1", 42)


async def test_unknown_faults_carry_their_id_and_bare_cuts_are_lost_connections() -> None:
    async with running_peer() as (peer, target), AsyncClient(target, retry=ONCE) as caller:
        peer.script.failures = deque([Fault(), PlainCut()])
        with pytest.raises(client.ServerFault) as fault:
            await caller.get("doc")
        assert len(fault.value.error_id) == 12
        with pytest.raises(client.ConnectionLost):
            await caller.get("doc")


@pytest.mark.parametrize("caller", Caller)
@pytest.mark.parametrize("attempt", range(3))
async def test_a_refusal_in_the_middle_of_an_upload_is_not_lost_to_failing_writes(
    caller: Caller, attempt: int
) -> None:
    async with running_peer() as (peer, target):
        peer.script.chunk_failures = deque([(300_000, errors.InvalidUtf8(299_999))])
        with pytest.raises(client.InvalidUtf8):
            await caller.upload(target, b"x" * 6_000_000)
        assert peer.calls == ["Upload"]
