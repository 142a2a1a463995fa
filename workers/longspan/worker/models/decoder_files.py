"""Where a decoder's files lie, and what they say before any weight is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from longspan.worker.failures import StartFailure
from longspan.worker.models.architecture import find_architecture
from longspan.worker.models.geometry import context_tokens
from longspan.worker.models.vocabulary import find_stop_tokens, open_tokenizer
from longspan.worker.models.weights import find_shards, fingerprint, read_headers


@dataclass(frozen=True, slots=True)
class DecoderFiles:
    """A verified Hugging Face folder of a decoder.

    Attributes:
        name: what people call the model.
        folder: holds config.json, the safetensors and tokenizer.json.
        fingerprint: SHA-256 over the configuration and all weights, lower-case hexadecimal.
        context_tokens: longest sequence, prompt and answer together.
        vocabulary: token ids are below it.
        stop_tokens: each ends an answer; empty where the files name none.
    """

    name: str
    folder: Path
    fingerprint: str
    context_tokens: int
    vocabulary: int
    stop_tokens: tuple[int, ...]


def find_decoder(folder: Path) -> DecoderFiles:
    """Verify a folder, and read everything but its weights, which are only hashed.

    Raises:
        StartFailure: files are missing, damaged or unsupported; the message is one line.
    """
    if not folder.is_dir():
        raise StartFailure(f"model folder {folder} does not exist")
    if not (folder / "config.json").is_file():
        raise StartFailure(f"model folder {folder} has no config.json")
    config = find_architecture(folder).config
    shards = find_shards(folder)
    read_headers(shards)
    tokenizer = open_tokenizer(folder, config.vocab_size)
    try:
        positions = context_tokens(config.to_dict())
    except ValueError as error:
        raise StartFailure(f"{folder}: {error}") from error
    return DecoderFiles(
        name=folder.resolve().name,
        folder=folder,
        fingerprint=fingerprint(folder / "config.json", shards),
        context_tokens=positions,
        vocabulary=config.vocab_size,
        stop_tokens=find_stop_tokens(folder, config, tokenizer),
    )
