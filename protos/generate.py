"""Compile protos/ into Python, next to the .proto files.

Hatchling runs this while it builds a wheel or an editable install. After a
.proto has changed, run it by hand: ``python protos/generate.py``.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

PROTOS = Path(__file__).resolve().parent


def generate() -> None:
    """Write the ``*_pb2*`` modules and their type stubs.

    Raises:
        SystemExit: protoc or one of its plug-ins failed or is missing.
    """
    from grpc_tools import protoc

    arguments = [
        "protoc",
        f"--proto_path={PROTOS}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--plugin=protoc-gen-mypy_grpc={_installed('protoc-gen-mypy_grpc')}",
        f"--python_out={PROTOS}",
        f"--pyi_out={PROTOS}",
        f"--grpc_python_out={PROTOS}",
        f"--mypy_grpc_out=quiet:{PROTOS}",
        *sorted(str(path) for path in PROTOS.rglob("*.proto")),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed: see the messages above")


def _installed(program: str) -> str:
    """Find a program of this environment, whether or not it is activated."""
    beside_python = str(Path(sys.executable).parent)
    path = os.pathsep.join([beside_python, os.environ.get("PATH", "")])
    found = shutil.which(program, path=path)
    if found is None:
        raise SystemExit(f"{program} is missing: pip install 'longspan[dev]'")
    return found


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, outside a build
    pass
else:

    class ProtoBuildHook(BuildHookInterface):  # type: ignore[type-arg,misc,unused-ignore]
        """Hatchling's way in."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Generate the stubs before files are collected."""
            generate()


if __name__ == "__main__":
    generate()
