"""``longspan serve``: hands its arguments to the server."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def serve_main(arguments: Sequence[str]) -> int:
    """Become the server; returns an exit status only where that is impossible.

    Executed, not called: what its ``grpc_core`` says must come before grpc is imported, which the
    client has done. The process keeps its id and its signals.
    """
    try:
        import longspan.server.__main__  # noqa: F401 (is all of it installed?)
    except ModuleNotFoundError as error:
        print(
            f"longspan: the server needs {error.name}: pip install 'longspan[server,embedded]'",
            file=sys.stderr,
        )
        return 1
    os.execv(sys.executable, [sys.executable, "-m", "longspan.server", *arguments])
