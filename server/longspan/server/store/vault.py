"""Where the files of documents and uploads lie.

data_dir/
  catalog.sqlite3
  lock                                    held while a server uses the folder
  run/                                    sockets of the workers
  uploads/<upload id>.part                spool files
  documents/<tenant>/<ab>/<sha256>        content
  documents/<tenant>/<ab>/<sha256>.<fingerprint>.index
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from longspan.server.errors import ConfigError
from longspan.server.identity import Tenant, UploadId, tenant_folder
from longspan.server.store.records import StoredDocument


class Vault:
    """Names files, moves an upload to its final place, removes what is deleted."""

    def __init__(self, data_dir: Path) -> None:
        self._uploads = data_dir / "uploads"
        self._documents = data_dir / "documents"
        self.catalog = data_dir / "catalog.sqlite3"
        try:
            for folder in (data_dir, self._uploads, self._documents):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"data_dir {data_dir} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ConfigError(f"data_dir {data_dir} is in use by another server") from error

    def close(self) -> None:
        """Let another server use the folder."""
        os.close(self._lock)

    def spool(self, upload_id: UploadId) -> Path:
        """The file of an open upload."""
        return self._uploads / f"{upload_id}.part"

    def content(self, document: StoredDocument) -> Path:
        """The file with a document's bytes."""
        return self._content(document.tenant, document.sha256)

    def index(self, document: StoredDocument, fingerprint: str) -> Path:
        """The file with a document's passages and vectors for one model."""
        content = self.content(document)
        return content.with_name(f"{content.name}.{fingerprint[:16]}.index")

    def keep(self, upload_id: UploadId, document: StoredDocument) -> None:
        """Make an upload's file the document's content, durably."""
        content = self.content(document)
        content.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.replace(self.spool(upload_id), content)
        folder = os.open(content.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard_spool(self, upload_id: UploadId) -> None:
        """Remove an upload's file."""
        with suppress(FileNotFoundError):
            self.spool(upload_id).unlink()

    def discard(self, document: StoredDocument) -> None:
        """Remove a document's content and its indexes."""
        content = self.content(document)
        for path in content.parent.glob(f"{content.name}*"):
            path.unlink(missing_ok=True)

    def spools(self) -> list[UploadId]:
        """Uploads that have a file."""
        return [UploadId(path.stem) for path in self._uploads.glob("*.part")]

    def _content(self, tenant: Tenant, sha256: str) -> Path:
        return self._documents / tenant_folder(tenant) / sha256[:2] / sha256
