"""``python -m longspan.worker.fidelity``: measures, and prints one JSON object a line."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from longspan.worker.allocator import one_arena
from longspan.worker.failures import StartFailure, UnforeseenFailure, loading
from longspan.worker.fidelity.options import parse

EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurements; return the exit status."""
    options = parse(argv)
    one_arena()
    if options.watch_stdin:
        from longspan.worker.parent import die_with_parent

        die_with_parent()
    try:
        with loading():  # a model's files can break anything
            from longspan.worker.fidelity.command import run

            run(options, _print)
    except StartFailure as failure:
        if isinstance(failure, UnforeseenFailure):
            traceback.print_exception(failure.__cause__)
        print(f"longspan: {failure}", file=sys.stderr)
        return failure.exit_status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _print(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    sys.exit(main())
