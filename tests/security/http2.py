"""HTTP/2 by hand, for calls that no library sends."""

from __future__ import annotations

import asyncio

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def header(name: bytes, value: bytes) -> bytes:
    """A header that is put into no table."""
    return b"\0" + _string(name) + _string(value)


def _string(data: bytes) -> bytes:
    """A string of HPACK, not compressed (RFC 7541, 5.1 and 5.2)."""
    if len(data) < 127:
        return bytes([len(data)]) + data
    length, digits = len(data) - 127, [127]
    while length >= 128:
        digits.append(length % 128 + 128)
        length //= 128
    return bytes([*digits, length]) + data


def beginning(window: int) -> bytes:
    """A connection's first bytes; of each answer so many bytes may be sent unasked."""
    return PREFACE + frame(SETTINGS, 0, 0, b"\0\x04" + window.to_bytes(4, "big"))


def empty_call(number: int, path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A connection's call of this number, counted from 0, with an empty message."""
    block, stream = _headers(path, *more), 2 * number + 1
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, bytes(5))


def call_of(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A connection's first call, without a message."""
    call = frame(HEADERS, END_HEADERS | END_STREAM, 1, _headers(path, *more))
    return PREFACE + frame(SETTINGS, 0, 0, b"") + call


def _headers(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    ]
    return b"".join(header(*one) for one in headers)


async def answer(port: int, data: bytes, until: bytes) -> bytes:
    """What a server answers up to some bytes, or to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    heard = b""
    try:
        async with asyncio.timeout(10):
            while until not in heard and (more := await reader.read(65536)):
                heard += more
    finally:
        writer.close()
    return heard
