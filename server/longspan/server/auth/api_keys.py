"""API keys: how they look, and the file that says whose they are.

A key is ``lsk_ID_SECRET``. The file has one line for each key, ``ID TENANT DIGEST``; lines that
begin with ``#`` are comments. Nobody can make a key from its line.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from longspan.server.auth.refusal import Refusal
from longspan.server.errors import ConfigError, Unauthenticated
from longspan.server.identity import Tenant, is_tenant

PREFIX = "lsk"
ID_BYTES = 8
SECRET_BYTES = 32
# Some 40,000 keys; read in the event loop's thread.
MAX_FILE_BYTES = 4 << 20
_KEY = re.compile(r"lsk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_LINE = re.compile(r"([0-9a-f]{16})\s+(\S+)\s+([0-9a-f]{64})")


def digest(key_id: str, secret: str) -> str:
    """What the file keeps of a key, in hexadecimal.

    One HMAC-SHA-256, with the id as its salt. A slow hash would slow down guessing, and these
    secrets are 256 random bits that nobody can guess: it would only slow down every call.
    """
    return hmac.digest(key_id.encode(), secret.encode(), hashlib.sha256).hex()


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made.

    Attributes:
        key: for the caller; it is kept nowhere.
        line: for the keys file.
    """

    key: str = field(repr=False)
    line: str


def new_key(tenant: Tenant) -> NewKey:
    """Make a key of 256 random bits."""
    key_id, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    return NewKey(f"{PREFIX}_{key_id}_{secret}", f"{key_id} {tenant} {digest(key_id, secret)}")


@dataclass(frozen=True, slots=True)
class _Entry:
    tenant: Tenant
    digest: str


class ApiKeys:
    """The keys of one version of the file."""

    def __init__(self, entries: Mapping[str, _Entry]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    @classmethod
    def read(cls, path: Path) -> ApiKeys:
        """The keys of a file.

        Raises:
            ConfigError: the file cannot be read, or a line is none; the line is not quoted.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"auth.keys_file {path}: {error.strerror}") from error
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"auth.keys_file {path}: longer than {MAX_FILE_BYTES} bytes")
        try:
            return cls.parse(data.decode("utf-8"))
        except ValueError as error:
            reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise ConfigError(f"auth.keys_file {path}: {reason}") from error

    @classmethod
    def parse(cls, text: str) -> ApiKeys:
        """The keys of a file's text.

        Raises:
            ValueError: a line is none, or an id stands twice.
        """
        entries: dict[str, _Entry] = {}
        for number, line in _lines(text):
            parts = _LINE.fullmatch(line)
            if parts is None or not is_tenant(parts[2]):
                raise ValueError(f"line {number} is not 'ID TENANT DIGEST'")
            if parts[1] in entries:
                raise ValueError(f"line {number} has an id that stands above")
            entries[parts[1]] = _Entry(Tenant(parts[2]), parts[3])
        return cls(entries)

    def tenant(self, key: str) -> Tenant:
        """Whose key it is.

        Raises:
            Unauthenticated: nobody's.
        """
        parts = _KEY.fullmatch(key)
        if parts is None:
            raise Unauthenticated(Refusal.MALFORMED)
        entry = self._entries.get(parts[1])
        # An unknown id costs as much as a wrong secret, and equal digests are found out in
        # constant time, so that the time of an answer says nothing about the digest.
        expected = "0" * 64 if entry is None else entry.digest
        equal = hmac.compare_digest(digest(parts[1], parts[2]), expected)
        if entry is None:
            raise Unauthenticated(Refusal.UNKNOWN_KEY)
        if not equal:
            raise Unauthenticated(Refusal.WRONG_KEY)
        return entry.tenant


def looks_like_key(credential: str) -> bool:
    """True for what can only be meant as an API key."""
    return credential.startswith(f"{PREFIX}_")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield number, stripped
