"""From ``--model`` to a local folder: a folder that exists, or one downloaded from the hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

from longspan.server.errors import ConfigError

# Weights are taken as safetensors only: other formats can run code when they are read.
WANTED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
# Copies of the same weights in other layouts.
UNWANTED = ("*/*", "consolidated*")
_HUB_ID = re.compile(r"([\w][\w.-]*/[\w][\w.-]*)(?:@([\w][\w./-]*))?", re.ASCII)


def resolve_folder(model: str, *, cache: Path | None = None) -> Path:
    """The absolute folder of ``FOLDER_OR_HUB_ID``; downloads what is missing. Blocking.

    A folder wins over a hub id of the same spelling. A hub id is ``owner/name`` or
    ``owner/name@revision``; progress goes to stderr. Without a network, a complete copy from
    an earlier download is used.

    Args:
        model: what the user wrote.
        cache: where downloads are kept; the hub client's own place when None.

    Raises:
        ConfigError: there is no such folder and nothing could be downloaded; says which.
    """
    folder = Path(model).expanduser()
    # An empty path would be the current folder.
    if model.strip() and folder.is_dir():
        return folder.resolve()
    if folder.is_file():
        raise ConfigError(f"model {model}: is a file; name the folder that holds it")
    match = _HUB_ID.fullmatch(model)
    if match is None:
        raise ConfigError(f"model {model}: no such folder, and not a hub id like owner/name")
    return _download(match[1], match[2], cache)


def _download(repository: str, revision: str | None, cache: Path | None) -> Path:
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            cache_dir=cache,
            allow_patterns=list(WANTED),
            ignore_patterns=list(UNWANTED),
        )
    except (OSError, ValueError, RuntimeError, HTTPError, XetDownloadError) as error:
        name = f"{repository}@{revision}" if revision else repository
        raise ConfigError(f"model {name}: {_reason(error)}") from error
    return Path(folder).resolve()


def _reason(error: Exception) -> str:
    """One line; the client's own messages run over several and name its servers."""
    match error:
        case GatedRepoError():
            return "the hub gives it to accounts that have accepted its terms; log in with one"
        case RepositoryNotFoundError():
            return "no such folder, and the hub has no public model of this name"
        case RevisionNotFoundError():
            return "the hub has the model, but not this revision"
        case LocalEntryNotFoundError() | OfflineModeIsEnabled():
            return "no such folder, no complete copy of an earlier download, and no way to the hub"
        case HFValidationError():
            return "no such folder, and not a valid hub id"
        case OSError(strerror=str(reason)) | OSError(__cause__=OSError(strerror=str(reason))):
            return f"the download failed: {reason}"
        case _:
            return f"the download failed ({type(error).__name__})"
