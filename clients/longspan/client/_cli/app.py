"""The commands and their options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, cast

import typer
from typer.main import get_command

from longspan.client._cli import asking, documents, keys
from longspan.client._cli.connection import connected, tls_of
from longspan.client._cli.doctor import diagnose
from longspan.client._cli.fidelity import fidelity
from longspan.client._cli.generation_options import GenerationOptions
from longspan.client._cli.options import (
    Json,
    NoCache,
    OutputOptions,
    Server,
    ServerOptions,
    ShowReasoning,
    Targets,
    TargetsAndText,
    TlsOptions,
)
from longspan.client._cli.output import open_output
from longspan.client._cli.serve import serve_main
from longspan.client._cli.spreading import spread
from longspan.client._cli.targets import parse_files, parse_targets
from longspan.client._tasks import Ask, CacheMode, Prompt, Summarize, Task


class CacheAction(Enum):
    """What ``cache`` does."""

    STATS = "stats"
    VERIFY = "verify"
    CLEAR = "clear"


class KeysAction(Enum):
    """What ``keys`` does."""

    NEW = "new"


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
    for command in (upload, ask, summarize, prompt, docs, cache, fidelity, doctor):
        app.command()(spread(command))
    app.command(name="keys")(make_key)
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
    server_options: ServerOptions,
    output_options: OutputOptions,
    title: Annotated[str | None, typer.Option(help="Instead of the file's name.")] = None,
) -> None:
    """Store documents; prints their ids."""
    files = parse_files(targets)
    with connected(server_options) as client, open_output(output_options) as output:
        documents.upload(client, files, title, output)


def ask(
    targets_and_question: TargetsAndText,
    server_options: ServerOptions,
    output_options: OutputOptions,
    generation_options: GenerationOptions,
    reasoning: ShowReasoning = False,
    no_cache: NoCache = False,
    citations: Annotated[int | None, typer.Option(help="Passages to cite at most.")] = None,
) -> None:
    """Answer a question from documents: longspan ask report.md "Which risks are new?"."""
    *targets, question = _with_text(targets_and_question, "QUESTION")
    task = Ask(
        question,
        citations,
        None,
        generation_options.method,
        generation_options.generation,
        _cache(no_cache),
    )
    _answer(targets, task, server_options, output_options, reasoning)


def summarize(
    targets: Targets,
    server_options: ServerOptions,
    output_options: OutputOptions,
    generation_options: GenerationOptions,
    reasoning: ShowReasoning = False,
    no_cache: NoCache = False,
    sentences: Annotated[int | None, typer.Option(help="Sentences at most.")] = None,
) -> None:
    """Say what matters most in documents."""
    task = Summarize(
        sentences, None, generation_options.method, generation_options.generation, _cache(no_cache)
    )
    _answer(targets, task, server_options, output_options, reasoning)


def prompt(
    targets_and_text: TargetsAndText,
    server_options: ServerOptions,
    output_options: OutputOptions,
    generation_options: GenerationOptions,
    reasoning: ShowReasoning = False,
    no_cache: NoCache = False,
) -> None:
    """Give documents and a free instruction to a decoder model."""
    *targets, text = _with_text(targets_and_text, "TEXT")
    task = Prompt(
        text, None, generation_options.method, generation_options.generation, _cache(no_cache)
    )
    _answer(targets, task, server_options, output_options, reasoning)


def docs(
    server_options: ServerOptions,
    output_options: OutputOptions,
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.LIST,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...")] = None,
    span: Annotated[
        str | None, typer.Option(metavar="A:B", help="Bytes to read; default all.")
    ] = None,
) -> None:
    """List, show, remove or read stored documents."""
    if (action is Action.LIST) == bool(ids):
        raise typer.BadParameter(f"docs {action.value} takes " + ("no ID" if ids else "an ID"))
    wanted = documents.parse_span(span)
    with connected(server_options) as client, open_output(output_options) as output:
        match action:
            case Action.LIST:
                documents.show_all(client, output)
            case Action.SHOW:
                documents.show(client, ids or [], output)
            case Action.RM:
                documents.remove(client, ids or [], output)
            case Action.READ:
                documents.read(client, ids or [], wanted, sys.stdout.buffer)


def cache(
    server_options: ServerOptions,
    output_options: OutputOptions,
    action: Annotated[CacheAction, typer.Argument(help="What to do.")] = CacheAction.STATS,
) -> None:
    """Look at what the server keeps of documents, check it, or clear it."""
    with connected(server_options) as client, open_output(output_options) as output:
        match action:
            case CacheAction.STATS:
                output.cache_stats(client.cache.stats())
            case CacheAction.VERIFY:
                output.cache_verified(client.cache.verify())
            case CacheAction.CLEAR:
                output.cache_cleared(client.cache.clear())


def make_key(
    action: Annotated[KeysAction, typer.Argument(help="What to do.")],
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose key it is.")],
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add the line to this keys file; print the key alone."),
    ] = None,
    json: Json = False,
) -> None:
    """Make an API key for a server's --auth.keys-file."""
    match action:
        case KeysAction.NEW:
            keys.make(tenant, file, json=json)


def doctor(
    context: typer.Context,
    tls_options: TlsOptions,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Say how long a document this decoder can hold here."),
    ] = None,
    server: Server = "localhost:50051",
    json: Json = False,
) -> None:
    """Say what this machine can do, what is installed, and whether it works."""
    source = context.get_parameter_source("server")
    named = source is not None and source.name != "DEFAULT"
    tls = tls_of(tls_options)
    raise typer.Exit(diagnose(server, tls, server_expected=named, model=model, json=json))


def _answer(
    targets: list[str],
    task: Task,
    server_options: ServerOptions,
    output_options: OutputOptions,
    reasoning: bool,
) -> None:
    parsed = parse_targets(targets)
    output = open_output(output_options, reasoning=reasoning)
    with connected(server_options) as client, output:
        asking.answer(client, parsed, task, output)


def _cache(no_cache: bool) -> CacheMode:
    return CacheMode.OFF if no_cache else CacheMode.DEFAULT


def _with_text(arguments: list[str], name: str) -> list[str]:
    if len(arguments) < 2:
        raise typer.BadParameter(f"give at least one file or document id, and {name}")
    return arguments
