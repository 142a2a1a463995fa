"""The page on metrics describes what there is."""

from __future__ import annotations

import re

from longspan.server import errors
from longspan.server.metrics.families import Family
from longspan.server.metrics.metrics import Metrics
from longspan.server.services.refusals import REASONS
from longspan.server.services.statuses import reason
from tests.support.data import REPOSITORY

PAGE = (REPOSITORY / "docs" / "metrics.md").read_text("utf-8")
FORBIDDEN = {"tenant", "document", "document_id", "request", "request_id", "user", "upload"}


def documented() -> list[Family]:
    rows = re.findall(r"^\| `(longspan_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    return [
        Family(name, kind, tuple(re.findall(r"`(\w+)`", labels)), meaning)
        for name, kind, labels, meaning in rows
    ]


def test_the_table_is_the_catalogue() -> None:
    assert documented() == list(Metrics().catalogue)


def test_no_label_names_anybody_or_anything_of_theirs() -> None:
    labels = {label for family in Metrics().catalogue for label in family.labels}
    assert not labels & FORBIDDEN


def test_units_and_suffixes_follow_the_conventions() -> None:
    for family in Metrics().catalogue:
        assert family.name.startswith("longspan_")
        assert family.name.endswith("_total") == (family.kind == "counter"), family.name
        assert not re.search(r"_(ms|millis|kb|mb|percent)(_|$)", family.name)
        assert family.meaning.endswith((".", ";")), family.name


def test_the_reasons_of_refusals_are_named() -> None:
    [named] = re.findall(r"<!-- reasons -->\n(.*?)\n<!-- end -->", PAGE, re.DOTALL)
    assert set(re.findall(r"`([A-Z0-9_]+)`", named)) == REASONS
    assert reason(errors.QueueFull) in REASONS
    assert reason(errors.GenerationFailed) not in REASONS
