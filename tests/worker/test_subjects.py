"""Things by tenant and subject, against a list that is looked through."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from longspan.worker.kv.label import Label
from longspan.worker.kv.subjects import Subjects

NAMES = st.sampled_from(["", "a", "b", "c"])


class AgainstAList(RuleBasedStateMachine):
    """Every question gets the answer of looking at every label."""

    def __init__(self) -> None:
        super().__init__()
        self.subjects: Subjects[int] = Subjects()
        self.labels: dict[int, Label] = {}

    @rule(tenant=NAMES, subject=NAMES)
    def add(self, tenant: str, subject: str) -> None:
        thing, label = len(self.labels), Label(tenant, subject)
        while thing in self.labels:
            thing += 1
        self.labels[thing] = label
        self.subjects.add(label, thing)

    @rule(number=st.integers(0, 20))
    def remove(self, number: int) -> None:
        if self.labels:
            thing = sorted(self.labels)[number % len(self.labels)]
            self.subjects.remove(self.labels.pop(thing), thing)

    @rule(tenant=NAMES, subject=NAMES)
    def belonging(self, tenant: str, subject: str) -> None:
        expected = [one for one, label in self.labels.items() if label.belongs(tenant, subject)]
        assert sorted(self.subjects.belonging(tenant, subject)) == sorted(expected)

    @rule(tenant=NAMES, subjects=st.sets(NAMES.filter(bool)))
    def chosen(self, tenant: str, subjects: set[str]) -> None:
        expected: dict[tuple[str, str], list[int]] = {}
        for one, label in self.labels.items():
            if label.belongs(tenant, "") and (not subjects or label.subject in subjects):
                expected.setdefault((label.tenant, label.subject), []).append(one)
        found = {name: sorted(of) for name, of in self.subjects.chosen(tenant, subjects)}
        assert found == {name: sorted(of) for name, of in expected.items()}

    @invariant()
    def nothing_empty_is_left(self) -> None:
        names = {(label.tenant, label.subject) for label in self.labels.values()}
        assert {name for name, _ in self.subjects.chosen("", ())} == names


TestSubjects = AgainstAList.TestCase
TestSubjects.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
