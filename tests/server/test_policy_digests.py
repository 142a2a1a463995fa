"""Answers under a policy follow from the files that it is read from."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from longspan.server.decoder.policy_digests import PRESETS_ALONE, policy_digests


def test_presets_have_no_files() -> None:
    assert policy_digests("hybrid", None) == PRESETS_ALONE
    assert PRESETS_ALONE.of(default=True) == PRESETS_ALONE.of(default=False) == ""


def test_a_changed_file_changes_what_follows_from_it(tmp_path: Path) -> None:
    """The policy's own file that of the default alone; maps may serve any policy."""
    policy, maps = tmp_path / "policy.json", tmp_path / "maps.safetensors"
    policy.write_bytes(b"one")
    maps.write_bytes(b"two")
    found = policy_digests(str(policy), maps)
    assert found.maps == sha256(b"two").hexdigest()
    assert found.of(default=False) == found.maps
    maps.write_bytes(b"three")
    other = policy_digests(str(policy), maps)
    assert other.of(default=True) != found.of(default=True)
    assert other.of(default=False) != found.of(default=False)
    policy.write_bytes(b"four")
    last = policy_digests(str(policy), maps)
    assert last.of(default=True) != other.of(default=True)
    assert last.of(default=False) == other.of(default=False)
