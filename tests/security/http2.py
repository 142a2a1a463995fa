"""HTTP/2 by hand, for calls that no library sends."""

from __future__ import annotations

import asyncio

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS = 1, 4
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def header(name: bytes, value: bytes) -> bytes:
    """A header that is put into no table; both are shorter than 127 bytes."""
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


def call_of(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A connection's first call, without a message."""
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    ]
    block = b"".join(header(*one) for one in headers)
    call = frame(HEADERS, END_HEADERS | END_STREAM, 1, block)
    return PREFACE + frame(SETTINGS, 0, 0, b"") + call


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
