"""HTML to text: block elements become lines, headings keep their rank as ``#``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from longspan.client._exceptions import UnsupportedFile

if TYPE_CHECKING:
    from bs4.element import PageElement, Tag

_BLOCKS = frozenset(
    """
    address article aside blockquote body caption dd details div dl dt fieldset figcaption
    figure footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section summary table
    tbody tfoot thead tr ul
    """.split()  # noqa: SIM905
)
_DROPPED = frozenset({"head", "iframe", "noscript", "object", "script", "style", "svg", "template"})
_PREFIXES = {"li": "- "} | {f"h{rank}": "#" * rank + " " for rank in range(1, 7)}
_SPACES = re.compile(r"[ \t\r\n\f\xa0]+")


def html_to_text(data: bytes) -> str:
    """The readable text of an HTML page, one line for each block.

    Raises:
        UnsupportedFile: beautifulsoup4 is not installed.
    """
    try:
        from bs4 import BeautifulSoup
    except ModuleNotFoundError as error:
        raise UnsupportedFile("reading HTML needs: pip install 'longspan[client]'") from error
    page = BeautifulSoup(data, "html.parser", from_encoding=_declared_or_utf8(data))
    return _text(page)


def _declared_or_utf8(data: bytes) -> str | None:
    try:
        data.decode()
    except UnicodeDecodeError:
        # Left to the page's own declaration.
        return None
    return "utf-8"


class _Lines:
    """Collects text into lines; white space collapses as in a browser."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._parts: list[str] = []
        # Goes before the next line, when there is one before the block ends.
        self.prefix = ""

    def add(self, text: str) -> None:
        self._parts.append(text)

    def add_as_it_is(self, text: str) -> None:
        self.end()
        self._lines += [line.rstrip() for line in text.strip("\n").splitlines()]

    def end(self) -> None:
        line = _SPACES.sub(" ", "".join(self._parts)).strip()
        self._parts.clear()
        if line:
            self._lines.append(self.prefix + line)
            self.prefix = ""

    def text(self) -> str:
        self.end()
        return "".join(f"{line}\n" for line in self._lines)


class _End:
    """The end of a block."""


_Stack: TypeAlias = "list[PageElement | _End]"


def _text(page: Tag) -> str:
    from bs4.element import NavigableString, PreformattedString, Tag

    lines = _Lines()
    # A stack of its own: pages nest deeper than Python recurses.
    stack: _Stack = [page]
    while stack:
        node = stack.pop()
        if isinstance(node, _End):
            lines.end()
            lines.prefix = ""
        elif isinstance(node, Tag):
            _enter(node, lines, stack)
        # Comments and declarations are strings too.
        elif isinstance(node, NavigableString) and not isinstance(node, PreformattedString):
            lines.add(str(node))
    return lines.text()


def _enter(tag: Tag, lines: _Lines, stack: _Stack) -> None:
    if tag.name in _DROPPED:
        return
    if tag.name == "pre":
        lines.add_as_it_is(tag.get_text())
        return
    if tag.name == "br":
        lines.end()
    elif tag.name in ("td", "th"):
        lines.add(" ")
    elif tag.name in _BLOCKS:
        lines.end()
        lines.prefix = _PREFIXES.get(tag.name, lines.prefix)
        stack.append(_End())
    stack.extend(reversed(tag.contents))
