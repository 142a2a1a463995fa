"""Which requests are equal: one SHA-256 over everything that decides an answer. Pure."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum

from longspan.server.decoder.options import GenerationOptions
from longspan.server.decoder.template import PromptParts
from longspan.server.identity import DocumentId, Tenant
from longspan.server.tasks.method import Method
from longspan.server.tasks.task import Task

# To be raised whenever the server makes other answers of the same inputs (passages, ranking,
# quotations), or records have another meaning.
LAYOUT = 1
SEED_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a task is answered on this server, whatever the documents.

    Attributes:
        fingerprint: of the model's weights.
        attention: the policy that documents are read under; empty for an encoder.
        policy: digest of the policy's file, if it has one.
        files: digest of the model's files that are no part of the fingerprint.
        prompt: what stands around the documents; None for an encoder.
        options: how tokens are chosen; None for an encoder.
    """

    method: Method
    task: Task
    fingerprint: str
    dtype: str
    attention: str = ""
    policy: str = ""
    files: str = ""
    prompt: PromptParts | None = None
    options: GenerationOptions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One document of a request.

    Attributes:
        sha256: of its bytes, in hexadecimal.
    """

    document_id: DocumentId
    sha256: str


def result_key(tenant: Tenant, documents: Iterable[Named], recipe: Recipe) -> bytes:
    """The key of an answer, 32 bytes."""
    parts = (LAYOUT, tenant, tuple(documents), _as_it_counts(recipe))
    return hashlib.sha256(canonical(parts)).digest()


def seed_of(task: Task, options: GenerationOptions) -> int:
    """The seed of a request that leaves it to the server but wants answers given before."""
    digest = hashlib.sha256(canonical((task, replace(options, seed=None)))).digest()
    return int.from_bytes(digest[:SEED_BYTES])


def canonical(value: object) -> bytes:
    """One encoding for each value: tagged, and with its length where that varies.

    Raises:
        TypeError: a kind of value that no request consists of.
    """
    match value:
        case None:
            return b"n"
        case Enum():
            return b"e" + _sized(f"{type(value).__name__}.{value.name}".encode())
        case bool():
            return b"t" if value else b"f"
        case int():
            return b"i" + _sized(str(value).encode())
        case float():
            return b"d" + struct.pack(">d", value)
        case str():
            return b"s" + _sized(value.encode())
        case tuple():
            return b"l" + struct.pack(">Q", len(value)) + b"".join(map(canonical, value))
    if is_dataclass(value) and not isinstance(value, type):
        named = tuple((one.name, getattr(value, one.name)) for one in fields(value))
        return b"o" + _sized(type(value).__name__.encode()) + canonical(named)
    raise TypeError(f"{type(value).__name__} has no canonical encoding")


def _as_it_counts(recipe: Recipe) -> Recipe:
    """Without the seed where no token is drawn."""
    if recipe.options is None or recipe.options.temperature > 0:
        return recipe
    return replace(recipe, options=replace(recipe.options, seed=None))


def _sized(data: bytes) -> bytes:
    return struct.pack(">Q", len(data)) + data
