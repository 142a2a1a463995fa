"""The options and arguments that commands share, alone or in groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Server: TypeAlias = Annotated[
    str, typer.Option(metavar="HOST:PORT", envvar="LONGSPAN_SERVER", help="The server to ask.")
]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line, each with an 'event'.")
]
ShowReasoning: TypeAlias = Annotated[
    bool,
    typer.Option("--reasoning", help="Show on standard error what the model thinks before."),
]
NoCache: TypeAlias = Annotated[
    bool, typer.Option("--no-cache", help="Take no answer given before, and keep this one nowhere.")
]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Which server answers."""

    server: Server = "localhost:50051"
    local: Annotated[
        bool, typer.Option("--local", help="Start a server for this command alone.")
    ] = False
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where --local keeps documents; default a temporary folder."),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(metavar="FOLDER_OR_HUB_ID", help="The decoder that --local loads."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """What is printed, and how."""

    json: Json = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress and no figures.")
    ] = False
