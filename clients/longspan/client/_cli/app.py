"""The commands and their options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, cast

import typer
from typer.main import get_command

from longspan.client._cli import asking, documents
from longspan.client._cli.connection import Connection
from longspan.client._cli.doctor import diagnose
from longspan.client._cli.options import (
    DataDir,
    Json,
    Local,
    Quiet,
    Server,
    Targets,
    TargetsAndText,
)
from longspan.client._cli.output import open_output
from longspan.client._cli.serve import serve_main
from longspan.client._cli.targets import parse_files, parse_targets
from longspan.client._tasks import Ask, Prompt, Summarize


class Action(Enum):
    """What ``docs`` does."""

    LIST = "list"
    SHOW = "show"
    RM = "rm"
    READ = "read"


def run(arguments: Sequence[str]) -> int:
    """Parse and run one command line; returns the exit status."""
    app = typer.Typer(
        name="longspan",
        help="Ask long documents; answers quote them by byte.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    untouched = {
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": cast(list[str], []),
    }
    app.command(context_settings=untouched)(serve)
    for command in (upload, ask, summarize, prompt, docs, doctor):
        app.command()(command)
    try:
        get_command(app)(args=list(arguments), prog_name="longspan")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    return 0


def serve(context: typer.Context) -> None:
    """Run the server; options are the server's own: see longspan serve --help."""
    raise typer.Exit(serve_main(context.args))


def upload(
    targets: Targets,
    title: Annotated[str | None, typer.Option(help="Instead of the file's name.")] = None,
    server: Server = "localhost:50051",
    local: Local = False,
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Store documents; prints their ids."""
    files = parse_files(targets)
    connection, output = Connection(server, local, data_dir), open_output(json=json, quiet=quiet)
    with connection.client() as client, output:
        documents.upload(client, files, title, output)


def ask(
    targets_and_question: TargetsAndText,
    citations: Annotated[int | None, typer.Option(help="Passages to cite at most.")] = None,
    server: Server = "localhost:50051",
    local: Local = False,
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer a question from documents: longspan ask report.md "Which risks are new?"."""
    *targets, question = _with_text(targets_and_question, "QUESTION")
    parsed = parse_targets(targets)
    connection, output = Connection(server, local, data_dir), open_output(json=json, quiet=quiet)
    with connection.client() as client, output:
        asking.answer(client, parsed, Ask(question, citations), output)


def summarize(
    targets: Targets,
    sentences: Annotated[int | None, typer.Option(help="Sentences at most.")] = None,
    server: Server = "localhost:50051",
    local: Local = False,
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print the sentences of documents that matter most."""
    parsed = parse_targets(targets)
    connection, output = Connection(server, local, data_dir), open_output(json=json, quiet=quiet)
    with connection.client() as client, output:
        asking.answer(client, parsed, Summarize(sentences), output)


def prompt(
    targets_and_text: TargetsAndText,
    server: Server = "localhost:50051",
    local: Local = False,
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give documents and a free instruction to a decoder model."""
    *targets, text = _with_text(targets_and_text, "TEXT")
    parsed = parse_targets(targets)
    connection, output = Connection(server, local, data_dir), open_output(json=json, quiet=quiet)
    with connection.client() as client, output:
        asking.answer(client, parsed, Prompt(text), output)


def docs(
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.LIST,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...")] = None,
    span: Annotated[
        str | None, typer.Option(metavar="A:B", help="Bytes to read; default all.")
    ] = None,
    server: Server = "localhost:50051",
    local: Local = False,
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List, show, remove or read stored documents."""
    if (action is Action.LIST) == bool(ids):
        raise typer.BadParameter(f"docs {action.value} takes " + ("no ID" if ids else "an ID"))
    wanted = documents.parse_span(span)
    connection, output = Connection(server, local, data_dir), open_output(json=json, quiet=quiet)
    with connection.client() as client, output:
        match action:
            case Action.LIST:
                documents.show_all(client, output)
            case Action.SHOW:
                documents.show(client, ids or [], output)
            case Action.RM:
                documents.remove(client, ids or [], output)
            case Action.READ:
                documents.read(client, ids or [], wanted, sys.stdout.buffer)


def doctor(context: typer.Context, server: Server = "localhost:50051", json: Json = False) -> None:
    """Say what is installed here, and whether it works."""
    source = context.get_parameter_source("server")
    named = source is not None and source.name != "DEFAULT"
    raise typer.Exit(diagnose(server, server_expected=named, json=json))


def _with_text(arguments: list[str], name: str) -> list[str]:
    if len(arguments) < 2:
        raise typer.BadParameter(f"give at least one file or document id, and {name}")
    return arguments
