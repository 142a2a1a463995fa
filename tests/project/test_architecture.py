"""What the documents say about the tree is true."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.data import REPOSITORY

SOURCES = [
    path
    for root in ("server", "workers", "clients")
    for path in sorted((REPOSITORY / root).rglob("*.py"))
]
LONGEST_FILE = 400


def load_modules_script() -> object:
    spec = importlib.util.spec_from_file_location("modules", REPOSITORY / "docs" / "modules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_module_lists_in_the_architecture_page_are_true() -> None:
    script = load_modules_script()
    expected = script.page()  # type: ignore[attr-defined]
    actual = (REPOSITORY / "docs" / "architecture.md").read_text("utf-8")
    assert actual == expected, "run: python docs/modules.py"


def test_no_root_hides_the_others() -> None:
    """``longspan`` is a namespace; an ``__init__.py`` in one root would hide the other three."""
    roots = ("protos", "server", "workers", "clients")
    assert [root for root in roots if (REPOSITORY / root / "longspan/__init__.py").exists()] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_module_says_what_it_is_and_stays_small(path: Path) -> None:
    text = path.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= LONGEST_FILE


def test_the_server_never_loads_torch() -> None:
    code = (
        "import sys, pkgutil, importlib, longspan.server as s\n"
        "for m in pkgutil.walk_packages(s.__path__, 'longspan.server.'):\n"
        "    importlib.import_module(m.name)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    import sys

    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_blob_store_is_for_every_part() -> None:
    """Server and worker import it; it must bring neither along, nor an event loop."""
    code = (
        "import sys, pkgutil, importlib, longspan.blobstore as s\n"
        "for m in pkgutil.walk_packages(s.__path__, 'longspan.blobstore.'):\n"
        "    importlib.import_module(m.name)\n"
        "heavy = {'asyncio', 'torch', 'numpy', 'longspan.server', 'longspan.worker'}\n"
        "assert not heavy & set(sys.modules)\n"
    )
    import sys

    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_relative_link_in_the_documents_leads_somewhere() -> None:
    pages = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
    pages += sorted((REPOSITORY / "docs").glob("*.md"))
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_optional_parts_are_all_declared() -> None:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = "client server worker embedded fidelity gpu flash redis ray compress dev"
    assert set(project["optional-dependencies"]) == set(extras.split())


def test_a_client_only_install_needs_no_torch() -> None:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    needed = project["dependencies"] + project["optional-dependencies"]["client"]
    names = {re.split(r"[\[<>=!~; ]", requirement)[0] for requirement in needed}
    assert not names & {"torch", "transformers", "longspan", "safetensors", "numpy"}
