"""What belongs to which document or upload, found without looking at anybody else's."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Generic, TypeVar

from longspan.worker.kv.label import Label

T = TypeVar("T")
Name = tuple[str, str]
"""Of a tenant and of its subject."""


class Subjects(Generic[T]):
    """Things by the tenant and subject of their labels; each is there once."""

    def __init__(self) -> None:
        self._tenants: dict[str, dict[str, dict[T, None]]] = {}

    def add(self, label: Label, thing: T) -> None:
        """It belongs there from now on."""
        self._tenants.setdefault(label.tenant, {}).setdefault(label.subject, {})[thing] = None

    def remove(self, label: Label, thing: T) -> None:
        """It belonged there, and is gone."""
        subjects = self._tenants[label.tenant]
        things = subjects[label.subject]
        del things[thing]
        if not things:
            del subjects[label.subject]
        if not subjects:
            del self._tenants[label.tenant]

    def belonging(self, tenant: str, subject: str) -> list[T]:
        """What is a tenant's and of one of its subjects; empty names mean all, as of a label."""
        chosen = (subject,) if subject else ()
        return [thing for _, things in self.chosen(tenant, chosen) for thing in things]

    def chosen(
        self, tenant: str, subjects: Collection[str]
    ) -> Iterator[tuple[Name, Collection[T]]]:
        """The same for several subjects, one by one; none at all means all."""
        tenants = [tenant] if tenant else list(self._tenants)
        for owner in tenants:
            owned = self._tenants.get(owner, {})
            for subject in subjects or list(owned):
                if subject in owned:
                    yield (owner, subject), owned[subject]
