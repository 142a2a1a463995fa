"""The attention policies that a worker serves, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from longspan.worker.attention.policy import PRESETS, ModelPolicy
from longspan.worker.attention.policy_file import SUFFIX, read_policy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.failures import StartFailure
from longspan.worker.models.probe import LayerShape


class UnknownPolicy(ValueError):
    """A request names a policy that is not served."""


class Policies:
    """The policies of one model; the first is that of requests that name none.

    Attributes:
        names: in this order.
    """

    def __init__(self, policies: Sequence[ModelPolicy]) -> None:
        self._policies = {policy.name: policy for policy in policies}
        self.names = tuple(self._policies)

    def get(self, name: str) -> ModelPolicy:
        """The policy of this name; of no name, the first.

        Raises:
            UnknownPolicy: there is none.
        """
        policy = self._policies.get(name or self.names[0])
        if policy is None:
            known = ", ".join(self.names)
            raise UnknownPolicy(f"no attention policy is called {name!r} here, only {known}")
        return policy


def policies_for(default: str, shapes: Sequence[LayerShape], fingerprint: str) -> Policies:
    """All presets that fit the model, ``default`` first, which may be a file beside them.

    Raises:
        StartFailure: ``default`` is unknown, cannot be read or does not fit.
    """
    first = find_policy(default, shapes, fingerprint)
    presets = [preset.of(len(shapes)) for preset in PRESETS.values()]
    served = [policy for policy in presets if fits(policy, shapes) and policy.name != first.name]
    return Policies([first, *served])


def find_policy(name: str, shapes: Sequence[LayerShape], fingerprint: str) -> ModelPolicy:
    """The policy of this name, or in this file where the name ends in ``.json``.

    Raises:
        StartFailure: it is unknown, cannot be read or does not fit the model.
    """
    if name.endswith(SUFFIX):
        policy = read_policy(Path(name), layers=len(shapes), fingerprint=fingerprint)
    elif name in PRESETS:
        policy = PRESETS[name].of(len(shapes))
    else:
        known = ", ".join(PRESETS)
        raise StartFailure(
            f"no attention policy is called {name!r}, only {known}; a file's name ends in {SUFFIX}"
        )
    if not fits(policy, shapes):
        raise StartFailure(
            f"the attention policy {name} forgets pages that this model's own sliding "
            "windows still see"
        )
    return policy


def fits(policy: ModelPolicy, shapes: Sequence[LayerShape]) -> bool:
    """True where no layer's own window reaches pages that the policy has dropped."""
    widest = max((shape.window or 0 for shape in shapes), default=0)
    return not policy.drops or widest <= policy.window_pages * PAGE_TOKENS
