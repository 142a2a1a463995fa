"""The options that say how an answer is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from longspan.client._generation import Generation
from longspan.client._tasks import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How a decoder writes the answer."""

    generative: Annotated[
        bool | None,
        typer.Option(
            "--generative/--extractive",
            help="Write an answer, or pick sentences; default what the server can do.",
        ),
    ] = None
    max_tokens: Annotated[
        int | None, typer.Option(help="Tokens to write at most, reasoning included.")
    ] = None
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None
    top_k: Annotated[int | None, typer.Option(help="Only the k most likely tokens.")] = None
    top_p: Annotated[
        float | None, typer.Option(help="Only the likeliest tokens that together reach this.")
    ] = None
    min_p: Annotated[
        float | None, typer.Option(help="Only tokens this likely relative to the likeliest.")
    ] = None
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer.")] = None
    stop: Annotated[
        list[str] | None, typer.Option(help="A text that ends the answer; may be repeated.")
    ] = None
    json_schema: Annotated[
        str | None, typer.Option(metavar="FILE_OR_JSON", help="The answer is JSON of this schema.")
    ] = None
    regex: Annotated[str | None, typer.Option(help="The whole answer matches this expression.")] = (
        None
    )
    attention: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How documents are read: full, window, hybrid, hierarchical; the server has a "
            "default.",
        ),
    ] = None

    @property
    def method(self) -> Method | None:
        """Who answers."""
        if self.generative is None:
            return None
        return Method.GENERATIVE if self.generative else Method.EXTRACTIVE

    @property
    def generation(self) -> Generation:
        """The options as the client has them.

        Raises:
            BadParameter: they contradict each other, or a number is out of every range.
        """
        try:
            return Generation(
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                min_p=self.min_p,
                seed=self.seed,
                stop=self.stop or (),
                json_schema=_schema(self.json_schema),
                regex=self.regex,
                attention=self.attention,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None


def _schema(given: str | None) -> str | None:
    if given is None:
        return None
    text = given if given.lstrip().startswith("{") else _contents(given)
    try:
        json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"the JSON schema is no JSON: {error}") from None
    return text


def _contents(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"the JSON schema cannot be read: {error}") from None
