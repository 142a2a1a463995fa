"""The command line of ``python -m longspan.worker.fidelity``, as values."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")


def positive(text: str) -> int:
    """A whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def count_or_share(text: str) -> int | float:
    """A whole number, or with a point in it a share."""
    if "." in text:
        return share(text)
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value


def several(kind: Callable[[str], Value]) -> Callable[[str], tuple[Value, ...]]:
    """Values between commas, each once."""

    def parse(text: str) -> tuple[Value, ...]:
        return tuple(dict.fromkeys(kind(part.strip()) for part in text.split(",")))

    return parse


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="longspan fidelity")
    parser.add_argument("--model", type=Path, required=True, help="a folder of a decoder")
    parser.add_argument(
        "--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: one a core)")
    parser.add_argument("--lengths", type=several(positive), help="tokens of a prompt")
    parser.add_argument("--depths", type=several(share), help="where the number is hidden, 0 to 1")
    parser.add_argument(
        "--policies",
        type=several(str),
        default=("full", "window", "hybrid"),
        help="names, or files that end in .json",
    )
    parser.add_argument("--attention-maps", type=Path, help="feature maps of linear far states")
    parser.add_argument("--text", type=Path, help="a file of long text (default: made-up text)")
    parser.add_argument("--out", type=Path, default=Path("longspan-fidelity"))
    parser.add_argument(
        "--answer-tokens", type=positive, default=32, help="tokens of an answer at most"
    )
    parser.add_argument("--calibrate", type=Path, help="write a policy to this .json file instead")
    parser.add_argument("--keep-mass", type=share, default=0.95)
    parser.add_argument("--full-layers", type=count_or_share)
    parser.add_argument("--kept", choices=["full", "hybrid"], default="full")
    parser.add_argument("--window-pages", type=positive, default=4)
    parser.add_argument("--prefix-pages", type=positive, default=1)
    parser.add_argument(
        "--watch-stdin", action="store_true", help="end when standard input reaches its end"
    )
    return parser.parse_args(argv)
