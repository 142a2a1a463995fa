"""The command line of ``python -m longspan.worker.distil``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from longspan.worker.attention.policy import LINEAR
from longspan.worker.distil.schedule import Schedule
from longspan.worker.fidelity.options import positive

TOKENS = 8192


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    usual = Schedule()
    parser = argparse.ArgumentParser(prog="longspan.worker.distil")
    parser.add_argument("--model", type=Path, required=True, help="a folder of a decoder")
    parser.add_argument("--text", type=Path, required=True, help="a file of text to learn from")
    parser.add_argument("--out", type=Path, required=True, help="the file of maps to write")
    parser.add_argument(
        "--attention",
        default=LINEAR.name,
        metavar="POLICY",
        help="whose far states: a name, or a file that ends in .json (default: %(default)s)",
    )
    parser.add_argument(
        "--tokens", type=positive, default=TOKENS, help="of a sequence (default: %(default)s)"
    )
    parser.add_argument(
        "--sequences", type=positive, default=usual.sequences, help="at most (%(default)s)"
    )
    parser.add_argument("--steps", type=positive, default=usual.steps, help="on each (%(default)s)")
    parser.add_argument("--rate", type=float, default=usual.rate, help="of Adam (%(default)s)")
    parser.add_argument(
        "--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: one a core)")
    return parser.parse_args(argv)
