"""``policy.json``: a policy of one model, layer by layer, and what it was measured from.

    {
      "version": 1,
      "name": "calibrated",
      "fingerprint": "5b2c…",
      "layers": [{"kind": "full"}, {"kind": "window", "prefix_pages": 1, "window_pages": 4}],
      "calibration": {"tokens": 32768}
    }

A layer has the fields of ``LayerPolicy``, those at their defaults left out. Read strictly: what
is not understood is an error, because a policy that is followed in part answers wrongly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from longspan.worker.attention.policy import (
    FULL,
    LINEAR,
    PRESETS,
    LayerPolicy,
    ModelPolicy,
)
from longspan.worker.failures import StartFailure

VERSION = 1
SUFFIX = ".json"
"""A policy whose name ends so is a file."""

KEYS = ("version", "name", "fingerprint", "layers", "calibration")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


class BadPolicyFile(ValueError):
    """The text is no policy; the message names the place in it."""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What a ``policy.json`` says.

    Attributes:
        name: how requests ask for the policy; no preset's.
        layers: one a layer of the model.
        fingerprint: of the model that it was measured on; None: for any with so many layers.
        calibration: what it was measured from, JSON values only; not read when it is served.
    """

    name: str
    layers: tuple[LayerPolicy, ...]
    fingerprint: str | None = None
    calibration: Mapping[str, Any] = field(default_factory=dict)

    @property
    def policy(self) -> ModelPolicy:
        """The policy; one that sees everything names no layer, as the preset does."""
        full = all(layer == FULL for layer in self.layers)
        return ModelPolicy(self.name, () if full else self.layers)


def parse_policy(text: str) -> PolicyFile:
    """The policy that a text holds.

    Raises:
        BadPolicyFile: it is no JSON, or says something else than the format has.
    """
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except BadPolicyFile:
        raise
    except (ValueError, RecursionError) as error:  # numbers without end, brackets without end
        raise BadPolicyFile(f"no JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadPolicyFile("no JSON object")
    _known(content, KEYS, "the file")
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        raise BadPolicyFile(f"version is {version!r}; this release reads {VERSION}")
    layers = content.get("layers")
    if not isinstance(layers, list) or not layers:
        raise BadPolicyFile("layers is no list with an object for each layer")
    return PolicyFile(
        name=check_name(content.get("name")),
        layers=tuple(_layer(layer, f"layer {index}") for index, layer in enumerate(layers)),
        fingerprint=_fingerprint(content.get("fingerprint")),
        calibration=_calibration(content.get("calibration", {})),
    )


def format_policy(file: PolicyFile) -> str:
    """The text of a ``policy.json``; ``parse_policy`` gives the same policy again."""
    content: dict[str, Any] = {
        "version": VERSION,
        "name": file.name,
        "fingerprint": file.fingerprint,
        "layers": [_stored(layer) for layer in file.layers],
    }
    if file.calibration:
        content["calibration"] = dict(file.calibration)
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def read_policy(path: Path, *, layers: int, fingerprint: str) -> ModelPolicy:
    """The policy in a file, for a model with so many layers and this fingerprint.

    Raises:
        StartFailure: it cannot be read, is malformed, or is another model's; one line.
    """
    try:
        file = parse_policy(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StartFailure(f"attention policy {path} cannot be read: {error}") from error
    except BadPolicyFile as error:
        raise StartFailure(f"attention policy {path}: {error}") from error
    if len(file.layers) != layers:
        raise StartFailure(
            f"attention policy {path}: it is for {len(file.layers)} layers, the model has {layers}"
        )
    if file.fingerprint not in (None, fingerprint):
        raise StartFailure(
            f"attention policy {path}: it was measured on another model, whose fingerprint "
            f"begins with {file.fingerprint[:12]}; this one's with {fingerprint[:12]}"
        )
    return file.policy


def write_policy(path: Path, file: PolicyFile) -> None:
    """Write a ``policy.json``.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(format_policy(file), "utf-8")


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadPolicyFile(f"{twice!r} stands twice in one object")
    return content


def _constant(text: str) -> NoReturn:
    raise BadPolicyFile(f"{text} is no number of JSON")


def _known(content: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    unknown = sorted(content.keys() - set(keys))
    if unknown:
        raise BadPolicyFile(f"{where} has an unknown key {unknown[0]!r}; known: {', '.join(keys)}")


def check_name(value: Any) -> str:
    """The name of a policy in a file.

    Raises:
        BadPolicyFile: it is no name, or a preset's.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadPolicyFile(
            f"name is {value!r}; it takes letters, digits, dots, dashes and underscores, 64 at most"
        )
    if value in PRESETS or value == LINEAR.name:
        raise BadPolicyFile(f"name is {value!r}, which is the name of a preset")
    return value


def _fingerprint(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise BadPolicyFile(f"fingerprint is {value!r}, neither a text nor null")
    return value


def _calibration(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadPolicyFile("calibration is no JSON object")
    return value


def _layer(value: Any, where: str) -> LayerPolicy:
    if not isinstance(value, dict):
        raise BadPolicyFile(f"{where} is no JSON object")
    defaults = {one.name: one.default for one in fields(LayerPolicy)}
    _known(value, tuple(defaults), where)
    if "kind" not in value:
        raise BadPolicyFile(f"{where} has no kind")
    given = {key: _field(defaults[key], one, f"{where}: {key}") for key, one in value.items()}
    try:
        return LayerPolicy(**given)
    except ValueError as error:
        raise BadPolicyFile(f"{where}: {error}") from error


def _field(default: Any, value: Any, where: str) -> Any:
    """The value of a field, which has the type of its default."""
    if isinstance(default, StrEnum):
        known = [str(one) for one in type(default)]
        if value not in known:
            raise BadPolicyFile(f"{where} is {value!r}; known: {', '.join(known)}")
        return type(default)(value)
    if type(value) is not type(default):  # True would pass for 1
        raise BadPolicyFile(f"{where} is {value!r}, no {type(default).__name__}")
    return value


def _stored(layer: LayerPolicy) -> dict[str, Any]:
    values = {one.name: getattr(layer, one.name) for one in fields(LayerPolicy)}
    defaults = {one.name: one.default for one in fields(LayerPolicy)}
    chosen = {name: one for name, one in values.items() if one != defaults[name]}
    return {"kind": str(layer.kind)} | {
        name: str(one) if isinstance(one, StrEnum) else one for name, one in chosen.items()
    }
