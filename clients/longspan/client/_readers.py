"""Files to text: what each suffix is read as."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from longspan.client._exceptions import UnsupportedFile
from longspan.client._html import html_to_text

PLAIN = "text/plain"
MARKDOWN = "text/markdown"


@dataclass(frozen=True, slots=True)
class Kind:
    """How files of one suffix are read.

    Attributes:
        media_type: of the text.
        convert: from the file's bytes to UTF-8 text; None sends the bytes as they are.
    """

    media_type: str
    convert: Callable[[bytes], bytes] | None = None


def kind_of(path: Path) -> Kind:
    """How to read a file, by its suffix.

    Raises:
        UnsupportedFile: the suffix is not known.
    """
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(_KINDS)
        raise UnsupportedFile(f"cannot read {path.name}: only {known} files are read")
    return kind


def _convert_html(data: bytes) -> bytes:
    return html_to_text(data).encode()


_KINDS: Mapping[str, Kind] = {
    ".txt": Kind(PLAIN),
    ".md": Kind(MARKDOWN),
    ".html": Kind(MARKDOWN, _convert_html),
    ".htm": Kind(MARKDOWN, _convert_html),
}
