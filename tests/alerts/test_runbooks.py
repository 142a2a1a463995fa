"""Runbooks and the table of alerts say what is so, and their queries can be run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from longspan.server.config import Config
from tests.alerts.rules import Rule, alerts, rules
from tests.support.data import REPOSITORY
from tests.support.promql import problems

DOCS = REPOSITORY / "docs"
PAGES = sorted((DOCS / "runbooks").glob("*.md"))
TABLE = (DOCS / "alerts.md").read_text("utf-8")
HEADINGS = [
    "What it means",
    "What to look at first",
    "What to do",
    "How to know that it is over",
]
RECORDED = frozenset(rule["record"] for rule in rules() if "record" in rule)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def settings() -> set[str]:
    """The names of all settings, as flags and as variables."""
    names = set()
    for name, field in Config.model_fields.items():
        names |= {f"--{name.replace('_', '-')}", f"LONGSPAN_{name.upper()}"}
        for own in getattr(field.annotation, "model_fields", {}):
            names |= {f"--{name}.{own.replace('_', '-')}", f"{name}.{own}"}
            names.add(f"LONGSPAN_{name.upper()}__{own.upper()}")
    return names


def test_there_is_a_page_for_each_alert_and_no_other() -> None:
    assert {page.stem for page in PAGES} == alerts().keys()


@each_page
def test_a_page_has_its_parts(page: Path) -> None:
    text = page.read_text("utf-8")
    rule = alerts()[page.stem]
    assert text.startswith(f"# {page.stem}\n\nSeverity **{rule['labels']['severity']}**, after ")
    minutes = rule["for"].removesuffix("m")
    assert f"after {minutes} minute" in text
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS


@each_page
def test_its_queries_can_be_asked(page: Path) -> None:
    [block] = re.findall(r"```promql\n(.*?)\n```", page.read_text("utf-8"), re.DOTALL)
    for query in block.splitlines():
        assert problems(query, RECORDED) == [], query


@each_page
def test_its_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"docs/\w+\.md", text):
        assert (REPOSITORY / target).exists(), target


@each_page
def test_the_settings_it_names_exist(page: Path) -> None:
    named = re.findall(r"`(--[a-z.-]+|LONGSPAN_\w+|limits\.\w+)", page.read_text("utf-8"))
    assert set(named) <= settings()


@pytest.mark.parametrize(("name", "rule"), alerts().items())
def test_the_table_has_its_row(name: str, rule: Rule) -> None:
    severity, lasting = rule["labels"]["severity"], rule["for"]
    row = rf"^\| \[{name}\]\(runbooks/{name}\.md\) \| {severity} \| {lasting} \| \S.* \|$"
    assert len(re.findall(row, TABLE, re.MULTILINE)) == 1


def test_the_table_has_no_other_rows() -> None:
    assert len(re.findall(r"^\| \[", TABLE, re.MULTILINE)) == len(alerts())
