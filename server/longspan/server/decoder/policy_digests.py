"""What tells files apart that attention policies are read from; answers follow from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PolicyDigests:
    """What tells files apart that attention policies are read from.

    Attributes:
        default: of the file of the policy of requests that name none; empty where it is a preset.
        maps: of the feature maps; empty where there are none.
    """

    default: str = ""
    maps: str = ""

    def of(self, *, default: bool) -> str:
        """What decides an answer under a policy beside its name."""
        return (self.default if default else "") + self.maps


PRESETS_ALONE = PolicyDigests()


def policy_digests(attention: str, attention_maps: Path | None) -> PolicyDigests:
    """SHA-256 of each file that an attention policy is read from.

    Blocking.
    """
    policy = Path(attention)
    files = policy if policy.suffix == ".json" else None, attention_maps
    default, maps = (
        "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    )
    return PolicyDigests(default, maps)
