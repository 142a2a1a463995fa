"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Server: TypeAlias = Annotated[
    str, typer.Option(metavar="HOST:PORT", envvar="LONGSPAN_SERVER", help="The server to ask.")
]
Local: TypeAlias = Annotated[
    bool, typer.Option("--local", help="Start a server for this command alone.")
]
DataDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Where --local keeps documents; default a temporary folder."),
]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line, each with an 'event'.")
]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Targets: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="FILE_OR_ID...", help="Files, '-' for stdin, or document ids."),
]
TargetsAndText: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE_OR_ID... TEXT",
        help="Files, '-' for stdin, or document ids; last the question or instruction.",
    ),
]
