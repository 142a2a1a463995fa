"""``longspan serve``: hands its arguments to the server."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def serve_main(arguments: Sequence[str]) -> int:
    """Run the server in this process; returns its exit status."""
    try:
        from longspan.server.__main__ import main
    except ModuleNotFoundError as error:
        print(
            f"longspan: the server needs {error.name}: pip install 'longspan[server,embedded]'",
            file=sys.stderr,
        )
        return 1
    return main(arguments)
