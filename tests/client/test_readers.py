"""Files become text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.client import UnsupportedFile
from longspan.client._html import html_to_text
from longspan.client._sources import open_source

PAGE = """<!doctype html><html><head><title>T</title><style>p {color: red}</style></head>
<body><!-- hidden --><h1>Annual  Report</h1>
<p>Revenue &amp; profit rose<br>by 5&nbsp;% &mdash; again. <b>Very</b><i>much</i></p>
<script>alert("x")</script>
<h2>Risks</h2><ul><li>Currency</li><li>Weather <p>in winter</p></li></ul>
<table><tr><th>Year</th><th>Sum</th></tr><tr><td>2024</td><td>7</td></tr></table>
<pre>keep
   this</pre><div>Last<div>nested</div>tail</div></body></html>"""

EXPECTED = """# Annual Report
Revenue & profit rose
by 5 % — again. Verymuch
## Risks
- Currency
- Weather
in winter
Year Sum
2024 7
keep
   this
Last
nested
tail
"""


def test_blocks_become_lines_and_headings_keep_their_rank() -> None:
    assert html_to_text(PAGE.encode()) == EXPECTED


def test_the_charset_of_a_page_is_honoured() -> None:
    page = '<meta charset="iso-8859-1"><p>Müller</p>'
    assert html_to_text(page.encode("iso-8859-1")) == "Müller\n"
    assert html_to_text("<p>Müller 東京</p>".encode()) == "Müller 東京\n"


def test_deep_nesting_is_read() -> None:
    assert html_to_text(b"<div>" * 3_000 + b"deep" + b"</div>" * 3_000) == "deep\n"


@given(words=st.lists(st.text("abc<>&\"'é東", min_size=1, max_size=8), max_size=20))
def test_escaped_paragraphs_come_back_as_they_were(words: list[str]) -> None:
    from html import escape

    page = "".join(f"<p>{escape(word)}</p>" for word in words)
    assert html_to_text(page.encode()) == "".join(f"{word}\n" for word in words)


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("a.txt", "text/plain"), ("a.MD", "text/markdown"), ("a.html", "text/markdown")],
)
def test_the_suffix_says_how_a_file_is_read(tmp_path: Path, name: str, media_type: str) -> None:
    path = tmp_path / name
    path.write_text("plain\n", "utf-8")
    reader = open_source(path)
    assert (reader.title, reader.media_type, reader.size_bytes) == (name, media_type, 6)
    assert reader.read(100) == b"plain\n"
    reader.rewind()
    assert reader.read(3) == b"pla"
    reader.close()


def test_other_files_are_refused_with_the_list_of_those_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFile, match=r"report\.pdf: only \.txt, \.md, \.html, \.htm"):
        open_source(tmp_path / "report.pdf")
