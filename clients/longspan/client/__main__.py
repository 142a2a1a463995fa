"""The command ``longspan``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from longspan.client._exceptions import LongspanError

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0 ok, 1 error, 2 usage, 130 interrupted."""
    try:
        # The command line's libraries are not needed by those who import the client.
        from longspan.client._cli.app import run
    except ModuleNotFoundError as error:
        return _fail(f"the command line needs {error.name}: pip install 'longspan[client]'")
    try:
        return run(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except LongspanError as error:
        return _fail(error.message)
    except OSError as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    print(f"longspan: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_ERROR


if __name__ == "__main__":
    sys.exit(main())
