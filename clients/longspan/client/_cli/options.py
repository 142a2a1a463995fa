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
class TlsOptions:
    """How a server is known."""

    tls: Annotated[
        bool, typer.Option("--tls", help="Encrypt, and check the server's certificate.")
    ] = False
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="LONGSPAN_TLS_CA",
            help="Authorities to check it by; implies --tls.",
        ),
    ] = None
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", envvar="LONGSPAN_TLS_CERT", help="Your own certificate; implies --tls."
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="LONGSPAN_TLS_KEY", help="The key of it."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions(TlsOptions):
    """Which server answers, and who asks."""

    server: Server = "localhost:50051"
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar="LONGSPAN_API_KEY",
            show_default=False,
            help="API key or token; others on this machine can see options, not the variable.",
        ),
    ] = None
    plaintext_key: Annotated[
        bool,
        typer.Option("--plaintext-key", help="Send the key to another machine without TLS too."),
    ] = False
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
