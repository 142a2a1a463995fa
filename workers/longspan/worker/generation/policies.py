"""The attention policies that a worker serves, by name."""

from __future__ import annotations

from collections.abc import Sequence

from longspan.worker.attention.policy import PRESETS, ModelPolicy, Policy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.failures import StartFailure
from longspan.worker.models.probe import LayerShape

UNSERVED = {
    "hierarchical-linear": "is an experiment that is not served: its feature maps must be "
    "distilled from the model first; hierarchical needs none"
}
"""Names that are understood, and why they are refused."""


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
        if policy is None and name in UNSERVED:
            raise UnknownPolicy(f"the attention policy {name} {UNSERVED[name]}")
        if policy is None:
            known = ", ".join(self.names)
            raise UnknownPolicy(f"no attention policy is called {name!r} here, only {known}")
        return policy


def policies_for(default: str, shapes: Sequence[LayerShape]) -> Policies:
    """All presets that fit the model, ``default`` first.

    Raises:
        StartFailure: ``default`` is unknown or does not fit.
    """
    if default in UNSERVED:
        raise StartFailure(f"the attention policy {default} {UNSERVED[default]}")
    if default not in PRESETS:
        known = ", ".join(PRESETS)
        raise StartFailure(f"no attention policy is called {default!r}, only {known}")
    served = [preset.of(len(shapes)) for preset in PRESETS.values() if fits(preset, shapes)]
    names = [policy.name for policy in served]
    if default not in names:
        raise StartFailure(
            f"the attention policy {default} forgets pages that this model's own sliding "
            "windows still see"
        )
    return Policies(sorted(served, key=lambda policy: policy.name != default))


def fits(preset: Policy, shapes: Sequence[LayerShape]) -> bool:
    """True where no layer's own window reaches pages that the policy has dropped."""
    policy = preset.of(len(shapes))
    widest = max((shape.window or 0 for shape in shapes), default=0)
    return not policy.drops or widest <= policy.window_pages * PAGE_TOKENS
