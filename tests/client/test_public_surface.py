"""What the package shows, and what importing it costs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from types import ModuleType

import pytest

import longspan.client as client
from longspan.client import AsyncClient, Client, _exceptions


def public_methods(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def test_all_is_sorted_complete_and_has_every_exception() -> None:
    assert client.__all__ == sorted(client.__all__)
    visible = {
        name
        for name, value in vars(client).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert visible == set(client.__all__)
    exceptions = {
        name
        for name, value in vars(_exceptions).items()
        if isinstance(value, type) and issubclass(value, client.LongspanError)
    }
    assert exceptions <= set(client.__all__)


def test_every_exception_stands_in_the_tree_of_the_docstring() -> None:
    assert _exceptions.__doc__ is not None
    for name, value in vars(_exceptions).items():
        if isinstance(value, type) and issubclass(value, client.LongspanError):
            assert re.search(rf"\b{name}\b", _exceptions.__doc__)
            assert value.__doc__


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    blocking, on_the_loop = public_methods(Client), public_methods(AsyncClient)
    assert blocking.keys() == on_the_loop.keys()
    for name, signature in blocking.items():
        mine = [(p.name, p.kind, p.default) for p in signature.parameters.values()]
        other = [(p.name, p.kind, p.default) for p in on_the_loop[name].parameters.values()]
        assert mine == other, name
    assert [*inspect.signature(Client).parameters] == [*inspect.signature(AsyncClient).parameters]


def test_both_streams_have_the_same_methods() -> None:
    assert public_methods(client.AnswerStream).keys() == {"text", "result"}
    assert public_methods(client.AsyncAnswerStream).keys() == {"text", "result"}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_no_wire_type_stands_in_a_public_signature(kind: type) -> None:
    for signature in public_methods(kind).values():
        assert "pb" not in str(signature)


def test_importing_the_client_loads_nothing_heavy() -> None:
    program = (
        "import sys, longspan.client\n"
        "heavy = {'torch', 'typer', 'rich', 'bs4', 'numpy', 'transformers', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
