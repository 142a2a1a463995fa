"""Callers with keys, without keys, and with keys that are none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

from longspan.server.auth.api_keys import new_key
from longspan.server.identity import Tenant
from longspan.v1 import (
    cache_service_pb2,
    document_service_pb2,
    inference_service_pb2,
)
from tests.e2e.conversation import reason

Metadata = tuple[tuple[str, str], ...]
FILES = (document_service_pb2, inference_service_pb2, cache_service_pb2)


def bearer(credential: str) -> Metadata:
    """What is sent along with a call."""
    return (("authorization", f"Bearer {credential}"),)


@dataclass
class KeysFile:
    """A keys file, and the keys that it knows by tenant."""

    path: Path
    keys: dict[str, str] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, *tenants: str) -> KeysFile:
        """One with a key for each tenant."""
        file = cls(folder / "keys")
        for tenant in tenants:
            file.add(tenant)
        return file

    def add(self, tenant: str) -> None:
        """Give a tenant a key."""
        made = new_key(Tenant(tenant))
        self.keys[tenant], self.lines[tenant] = made.key, made.line
        self.save()

    def remove(self, tenant: str) -> None:
        """Take a tenant's key away."""
        del self.lines[tenant]
        self.save()

    def save(self) -> None:
        """Write it aside and put it into its place."""
        aside = self.path.with_suffix(".new")
        aside.write_text("".join(f"{line}\n" for line in self.lines.values()))
        aside.replace(self.path)

    def sent(self, tenant: str) -> Metadata:
        """What a tenant sends along."""
        return bearer(self.keys[tenant])


def methods() -> Iterator[MethodDescriptor]:
    """Every method of the API."""
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def path_of(method: MethodDescriptor) -> str:
    """How a call names it."""
    return f"/{method.containing_service.full_name}/{method.name}"


@dataclass(frozen=True)
class Refused:
    """How a call was refused."""

    code: grpc.StatusCode
    reason: str
    message: str


async def refusal(channel: Any, path: str, metadata: Metadata | None) -> Refused:
    """How a call of any kind is refused; it sends nothing and goes on sending."""
    call = channel.stream_stream(path)(metadata=metadata, timeout=10)
    try:
        message = await call.read()
    except grpc.aio.AioRpcError as error:
        return Refused(error.code(), reason(error), error.details() or "")
    finally:
        call.cancel()
    raise AssertionError(f"{path} answered {message!r}")
