"""Groups of options, spread into the signature of a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each parameter that is a group replaced by the group's own fields.

    Typer reads signatures; without this every command would list every shared option.
    """
    hints = get_type_hints(command, include_extras=True)
    del hints["return"]
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}

    @functools.wraps(command)
    def given(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{one.name: values.pop(one.name) for one in fields(kind)})
        command(**values)

    parameters = [
        one
        for parameter in inspect.signature(command).parameters.values()
        for one in _parameters(parameter, hints[parameter.name])
    ]
    given.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    given.__annotations__ = {one.name: one.annotation for one in parameters}
    return given


def _parameters(parameter: inspect.Parameter, hint: Any) -> list[inspect.Parameter]:
    if not is_dataclass(hint):
        return [parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)]
    hints = get_type_hints(hint, include_extras=True)
    return [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=one.default,
            annotation=hints[one.name],
        )
        for one in fields(hint)
    ]
