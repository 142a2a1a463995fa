"""``python -m longspan.worker.distil``: feature maps for the linear far states of one decoder."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from longspan.worker.allocator import one_arena
from longspan.worker.distil.options import parse
from longspan.worker.failures import StartFailure, UnforeseenFailure, loading


def main(argv: Sequence[str] | None = None) -> int:
    """Distil; return the exit status."""
    options = parse(argv)
    one_arena()
    try:
        with loading():  # a model's files can break anything
            from longspan.worker.distil.command import run

            run(options, lambda line: print(line, flush=True))
    except StartFailure as failure:
        if isinstance(failure, UnforeseenFailure):
            traceback.print_exception(failure.__cause__)
        print(f"longspan: {failure}", file=sys.stderr)
        return failure.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
