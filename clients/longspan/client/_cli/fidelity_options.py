"""The options of ``longspan fidelity``, and what they are for the program that measures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Model: TypeAlias = Annotated[Path, typer.Option(metavar="FOLDER", help="The decoder to measure.")]


class Kept(Enum):
    """How a layer reads that needs the whole document."""

    FULL = "full"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingChoice:
    """How it is loaded, and what it reads; None leaves it to the program."""

    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto"
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu"
    threads: Annotated[int | None, typer.Option(help="CPU threads; default one a core.")] = None
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Long text; default made-up sentences.")
    ] = None
    lengths: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Tokens of a prompt; default 8192,32768.")
    ] = None
    depths: Annotated[
        str | None,
        typer.Option(metavar="X,X,...", help="Where the number is hidden; default 0.1,0.5,0.9."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GridChoice:
    """What the grid has besides."""

    policies: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,FILE,...",
            help="Names, or files that end in .json; default full,window,hybrid.",
        ),
    ] = None
    attention_maps: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Feature maps, for hierarchical-linear."),
    ] = None
    answer_tokens: Annotated[
        int | None, typer.Option(help="Tokens of an answer at most; default 32.")
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="For the files; default longspan-fidelity."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationChoice:
    """How a policy is made."""

    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="POLICY.json", help="Measure what a window would lose, and write a policy."
        ),
    ] = None
    keep_mass: Annotated[
        float | None,
        typer.Option(help="A layer gets a window if each kv head keeps so much; default 0.95."),
    ] = None
    full_layers: Annotated[
        str | None,
        typer.Option(metavar="N|SHARE", help="So many layers see everything instead: 7, or 0.25."),
    ] = None
    kept: Annotated[
        Kept | None, typer.Option(help="What layers get that need the document; default full.")
    ] = None
    window_pages: Annotated[
        int | None, typer.Option(help="Pages of 256 tokens before a query's own; default 4.")
    ] = None
    prefix_pages: Annotated[int | None, typer.Option(help="First pages; default 1.")] = None


Choice: TypeAlias = ReadingChoice | GridChoice | CalibrationChoice


def arguments(*choices: Choice) -> Iterator[str]:
    """The same options for ``python -m longspan.worker.fidelity``; it knows the defaults."""
    for choice in choices:
        for one in fields(choice):
            value = getattr(choice, one.name)
            if value is not None:
                shown = value.value if isinstance(value, Enum) else value
                yield f"--{one.name.replace('_', '-')}={shown}"
