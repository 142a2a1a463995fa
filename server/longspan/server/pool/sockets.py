"""The private directory that the workers' sockets live in."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from longspan.server.errors import ConfigError

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, with the terminating zero.
PATH_BYTES = 100


class SocketDirectory:
    """A directory of mode 0700; no path in it is ever used twice.

    Raises:
        ConfigError: the path is too long for a unix socket.
    """

    def __init__(self, parent: Path | None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="longspan-", dir=parent))
        self._count = 0
        if len(bytes(self.path / "000000.sock")) >= PATH_BYTES:
            self.remove()
            raise ConfigError(f"too long for a socket: {self.path}; set another runtime directory")

    def new_path(self) -> Path:
        """A socket path for one worker process."""
        self._count += 1
        return self.path / f"{self._count}.sock"

    def remove(self) -> None:
        """Delete the directory and the sockets in it."""
        shutil.rmtree(self.path, ignore_errors=True)
