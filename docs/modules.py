"""Writes the module lists of architecture.md from the modules' own first sentences.

python docs/modules.py
"""

from __future__ import annotations

import ast
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "architecture.md"
MARK = "<!-- modules: written by docs/modules.py -->\n"
ROOTS = {
    "Server": "server/longspan/server",
    "Blob store": "server/longspan/blobstore",
    "Machine": "server/longspan/host",
    "Span export": "server/longspan/otlp",
    "Worker": "workers/longspan/worker",
    "Client": "clients/longspan/client",
}


def module_lists() -> str:
    """One table a part, one line a module."""
    return "\n".join(_table(title, REPOSITORY / root) for title, root in ROOTS.items())


def page() -> str:
    """The page as it should be."""
    head, _, _ = PAGE.read_text("utf-8").partition(MARK)
    return head + MARK + "\n" + module_lists()


def _table(title: str, root: Path) -> str:
    lines = [f"### {title}: `{root.relative_to(REPOSITORY)}/`", "", "| module | |", "|---|---|"]
    lines += [
        f"| `{path.relative_to(root)}` | {_first_sentence(path)} |"
        for path in sorted(root.rglob("*.py"))
        if path.name != "__init__.py"
    ]
    return "\n".join(lines) + "\n"


def _first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
