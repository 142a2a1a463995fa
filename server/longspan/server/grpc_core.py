"""What gRPC's core, which reads the environment when it starts, is told beforehand."""

from __future__ import annotations

import os

SETTINGS = {
    # Processes are only forked to execute others. What the core does in each forked child so
    # that it could go on using gRPC there can end the child before its exec.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    # Its notes go to standard error past every log handler.
    "GRPC_VERBOSITY": "ERROR",
}


def prepare_grpc_core() -> None:
    """Set what the caller has not set; must come before the first import of grpc."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
