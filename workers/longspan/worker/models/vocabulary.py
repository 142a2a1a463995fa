"""What a decoder's tokenizer says about its tokens: whether they fit the model, which ones stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longspan.worker.failures import StartFailure
from longspan.worker.model_files import read_json

TOKENIZER = "tokenizer.json"


def open_tokenizer(folder: Path, vocabulary: int) -> Any:
    """The tokenizer, whose tokens all have a row among the model's embeddings.

    Special tokens above the last row are let through: text-only Gemma 3 has one, for images.
    Whoever takes tokens from outside must refuse ids from ``vocabulary`` on.

    Raises:
        StartFailure: tokenizer.json is absent, unreadable or of a larger vocabulary.
    """
    from tokenizers import Tokenizer

    path = folder / TOKENIZER
    if not path.is_file():
        raise StartFailure(f"model folder {folder} has no {TOKENIZER}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise StartFailure(f"{path} cannot be read: {error}") from error
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    largest = max(set(tokenizer.get_vocab().values()) - special, default=-1)
    if largest >= vocabulary:
        raise StartFailure(f"{path} has token {largest}, the model only {vocabulary} embeddings")
    return tokenizer


def find_stop_tokens(folder: Path, config: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end an answer: generation_config.json, else config.json, else the tokenizer.

    Raises:
        StartFailure: what the files name are no tokens of this model.
    """
    found = _generation_stops(folder)
    if found is None:
        found = config.eos_token_id
    if found is None:
        found = _tokenizer_stop(folder, tokenizer)
    stops = tuple(found) if isinstance(found, list | tuple) else (found,)
    stops = tuple(stop for stop in stops if stop is not None)
    for stop in stops:
        if not isinstance(stop, int) or not 0 <= stop < config.vocab_size:
            raise StartFailure(f"{folder}: the end-of-text token {stop!r} is no token of the model")
    return tuple(dict.fromkeys(stops))


def _generation_stops(folder: Path) -> Any:
    path = folder / "generation_config.json"
    return read_json(path).get("eos_token_id") if path.is_file() else None


def _tokenizer_stop(folder: Path, tokenizer: Any) -> int | None:
    path = folder / "tokenizer_config.json"
    name = read_json(path).get("eos_token") if path.is_file() else None
    if isinstance(name, dict):  # how older files write a token
        name = name.get("content")
    found: int | None = tokenizer.token_to_id(name) if isinstance(name, str) else None
    return found
