"""Groups of settings that manifests and runbooks name and that the server may not have yet."""

from __future__ import annotations

from longspan.server.config import Config

GROUPS = ("auth", "insecure", "metrics", "tls", "tracing")


def pending(name: str) -> bool:
    """True for a flag or a variable of a group that is missing; of none once all are there."""
    plain = name.removeprefix("--").removeprefix("LONGSPAN_").lower()
    group = plain.replace("__", ".").partition(".")[0]
    return group in GROUPS and group not in Config.model_fields
