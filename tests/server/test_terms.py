"""Words as the search index counts them."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from longspan.server.text.terms import ideographic_share, terms


def same(left: str, right: str) -> bool:
    return bool(terms(left).tolist() == terms(right).tolist())


def test_words_are_stemmed_and_cases_folded() -> None:
    assert same("Invoices UNPAID", "invoice unpaid")


def test_function_words_are_left_out() -> None:
    assert same("what is the fee of it", "fee")
    assert len(terms("what is the")) == 0


def test_numbers_keep_their_separators() -> None:
    assert not same("1,894", "1 894")
    assert same("1,894.", "1,894")


def test_ideographs_count_as_pairs() -> None:
    assert len(terms("数据泄露")) == 3
    assert np.isin(terms("泄露"), terms("数据泄露")).all()
    assert len(terms("款")) == 1


def test_the_share_of_ideographs() -> None:
    assert ideographic_share("数据泄露") == 1.0
    assert ideographic_share("abc") == 0.0
    assert ideographic_share("12 ?") == 0.0
    assert ideographic_share("合同ab") == 0.5


def test_threads_do_not_mix_their_words_up() -> None:
    """The stemmer is an object with a state; a shared one raised IndexError under load."""
    words = [
        f"{stem}{ending}{n}x"
        for n in range(400)
        for stem in ("generous", "nation")
        for ending in ("ly", "alization", "ness")
    ]
    texts = [" ".join(words[start::8]) for start in range(8)]
    expected = [terms(text).tolist() for text in texts]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(3):
            from longspan.server.text import terms as module

            module._hashes.cache_clear()
            with ThreadPoolExecutor(8) as threads:
                found = list(threads.map(lambda text: terms(text).tolist(), texts))
            assert found == expected
    finally:
        sys.setswitchinterval(before)
