"""What the fidelity of a policy is measured by, against scores written out in numpy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.base import Attended
from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.naive_policy import visible
from longspan.worker.attention.policy import FULL, LayerPolicy, ModelPolicy
from longspan.worker.attention.selection import STRIDE
from longspan.worker.attention.step_attention import StepAttention
from longspan.worker.attention.zones import NO_ZONES, Zones
from longspan.worker.fidelity import sampling
from longspan.worker.fidelity.capture import Captures
from longspan.worker.fidelity.key_sets import seen_pages
from longspan.worker.fidelity.losses import Losses
from longspan.worker.fidelity.observed import Look
from tests.worker.test_policies import CPU, HEADS, KV_HEADS, POLICIES, SCALE, WINDOW, Document

Doubles = npt.NDArray[np.float64]
TOKENS = 1800
ZONES = Zones(task_start=1700, answer_start=1790)


def shares(document: Document, scale: float = SCALE) -> Doubles:
    """Full attention's weights: [heads, n, n]."""
    query = document.query.double().numpy()
    keys = document.keys.double().numpy().repeat(HEADS // KV_HEADS, 1)
    found = np.einsum("qhd,khd->hqk", query, keys) * scale
    found[:, np.triu(np.ones((len(query),) * 2, bool), 1)] = -np.inf
    found = np.exp(found - found.max(-1, keepdims=True))
    return np.asarray(found / found.sum(-1, keepdims=True))


def seen_by(document: Document, policy: LayerPolicy, zones: Zones) -> npt.NDArray[np.bool_]:
    """What the definition lets each query head see: [heads, n, n]."""
    seen = visible(document.query, document.keys, policy, zones, stride=STRIDE).numpy()
    return np.asarray(seen.repeat(HEADS // KV_HEADS, 0))


def outputs(weights: Doubles, document: Document) -> Doubles:
    """Weighted values: [heads, n, dv]."""
    values = document.values.double().numpy().repeat(HEADS // KV_HEADS, 1)
    return np.asarray(np.einsum("hqk,khd->hqd", weights, values))


def watch(
    document: Document,
    policy: LayerPolicy,
    zones: Zones,
    span: tuple[int, int],
    sampled: list[int],
    *,
    followed: LayerPolicy | None = None,
) -> Captures:
    """Captures of one step; ``followed`` is what the step really does, if it is another policy."""
    start, end = span
    document.write(0, start)
    document.write(start, end)
    rows, query = document.rows(start, end), document.query[start:end]
    view = View(ModelPolicy("test", (policy,)), zones)
    does = View(ModelPolicy("test", (followed or policy,)), zones)
    step = StepAttention([CpuBackend()], [rows], [does], CPU)
    done: Attended = step.attend(0, query, document.layer, scale=SCALE, window=None)
    captures = Captures(CpuBackend(), 1)
    observer = captures.observer(rows, view, np.array(sampled))
    observer(Look(0, query, document.layer, done.out, SCALE, None))
    return captures


def watched() -> Document:
    """The document that most tests look at, with all that any policy looks at."""
    document = Document(TOKENS, seed=3)
    document.keep_sums(document.maps)
    return document


@cache
def shares_of_watched() -> Doubles:
    """Its weights, which take a second to compute."""
    return shares(watched())


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(
    ("span", "zones"),
    [((1024, 1792), NO_ZONES), ((1536, TOKENS), ZONES), ((1795, 1796), ZONES)],
    ids=["document", "task and answer", "one token"],
)
def test_mass_and_error_are_those_of_the_definition(
    name: str, span: tuple[int, int], zones: Zones
) -> None:
    """The same numbers as when every score and every key set is written out."""
    document, policy = watched(), POLICIES[name]
    length = span[1] - span[0]
    sampled = sorted({0, length // 3, 2 * length // 3, length - 1})
    captures = watch(document, policy, zones, span, sampled)
    weights = shares_of_watched()
    seen = seen_by(document, policy, zones)
    places = span[0] + np.array(sampled)
    expected = (weights * seen).sum(-1)[:, places].T
    np.testing.assert_allclose(captures.layers[0].all_masses, expected, atol=1e-5)
    full = outputs(weights, document)[:, span[0] : span[1]]
    defined = document.reference(policy, zones).out.double().numpy().swapaxes(0, 1)
    part = defined[:, span[0] : span[1]]
    error = np.linalg.norm(part - full) / np.linalg.norm(full)
    assert captures.error == pytest.approx(error, abs=1e-5)


@pytest.mark.parametrize(
    ("span", "zones"), [((1024, 1792), NO_ZONES), ((1536, TOKENS), ZONES)], ids=["document", "task"]
)
def test_pages_on_the_host_are_seen_as_those_on_the_device(
    span: tuple[int, int], zones: Zones
) -> None:
    """Those that see everything are planned apart, and see everything."""
    document, policy = watched(), POLICIES["hybrid"]
    document.write(0, TOKENS)
    rows, query = document.rows(*span), document.query[span[0] : span[1]]
    sampled = np.array([0, 100, span[1] - span[0] - 1])
    on_device, on_host = (
        seen_pages(rows, one, zones, query, document.layer, sampled)
        for one in (policy, replace(policy, on_host=True))
    )
    assert on_device.any()
    np.testing.assert_array_equal(on_host, on_device)


def test_full_attention_loses_nothing_at_all() -> None:
    """Exactly: no rounding stands in a table as a loss."""
    captures = watch(Document(TOKENS), FULL, NO_ZONES, (1024, 1800), [0, 5, 700])
    assert captures.mass == (1.0, 1.0)
    assert captures.error == 0.0


def test_a_step_that_does_not_follow_its_policy_is_noticed() -> None:
    """The error is that of what was computed, not of what was planned."""
    document = Document(TOKENS)
    honest = watch(document, FULL, NO_ZONES, (1024, 1536), [9])
    mutant = watch(document, FULL, NO_ZONES, (1024, 1536), [9], followed=WINDOW)
    assert honest.error == 0.0
    assert mutant.error > 0.1
    assert mutant.mass == (1.0, 1.0)


def test_a_layer_with_a_window_of_its_own_loses_nothing() -> None:
    """It has no policy: the window is what it was trained with."""
    document = Document(TOKENS)
    document.write(0, TOKENS)
    rows, query = document.rows(1024, TOKENS), document.query[1024:]
    backend = CpuBackend()
    plan = backend.plan(rows, CPU)
    out = backend.attend(query, document.layer, plan, scale=SCALE, window=300).out
    captures = Captures(backend, 1)
    view = View(ModelPolicy("test", (WINDOW,)), NO_ZONES)
    look = Look(0, query, document.layer, out, SCALE, 300)
    captures.observer(rows, view, np.array([3, 500]))(look)
    assert captures.mass == (1.0, 1.0)
    assert captures.error == 0.0
    losses = Losses(WINDOW)
    losses.observer(rows, NO_ZONES, np.array([3]))(look)
    assert losses.layers == {}


@pytest.mark.parametrize("scale", [SCALE, 40.0])
def test_what_a_window_would_lose_is_what_dense_attention_says(scale: float) -> None:
    """By kv head, the worst query head's; also where the window is left without any mass."""
    document = Document(TOKENS, seed=5)
    document.write(0, TOKENS)
    rows, sampled = document.rows(1024, TOKENS), np.array([0, 100, 775])
    query = document.query[1024:]
    losses = Losses(WINDOW)
    look = Look(2, query, document.layer, torch.zeros_like(query), scale, None)
    losses.observer(rows, NO_ZONES, sampled)(look)
    lost, error = losses.layers[2].by_kv_head(KV_HEADS)
    places = 1024 + sampled
    weights = shares(document, scale)[:, places]
    seen = seen_by(document, WINDOW, NO_ZONES)[:, places]
    by_head = (weights * ~seen).sum(-1).mean(-1)
    np.testing.assert_allclose(lost, by_head.reshape(KV_HEADS, -1).max(1), atol=1e-5)
    limited = weights * seen
    mass = limited.sum(-1, keepdims=True)
    assert np.isfinite(error).all()
    if scale == SCALE:
        full, part = outputs(weights, document), outputs(limited / mass, document)
        errors = np.linalg.norm(part - full, axis=(1, 2)) / np.linalg.norm(full, axis=(1, 2))
        np.testing.assert_allclose(error, errors.reshape(KV_HEADS, -1).max(1), atol=1e-5)


@settings(max_examples=50)
@given(
    steps=st.lists(st.integers(1, 1000), min_size=1, max_size=60),
    number=st.integers(0, 59),
)
def test_steps_and_queries_are_sampled_where_they_are(steps: list[int], number: int) -> None:
    """A bounded number of steps of the second half; queries ascend within their step."""
    ends = np.cumsum(steps).tolist()
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    chosen = sampling.watched(spans, ends[-1])
    assert 1 <= len(chosen) <= sampling.STEPS
    assert spans[-1] in chosen
    assert all(span in spans and span[1] > ends[-1] // 2 for span in chosen)
    span = spans[number % len(spans)]
    queries = sampling.sampled(span, len(chosen))
    assert len(queries) == min(span[1] - span[0], sampling.QUERIES // len(chosen))
    assert (np.diff(queries) > 0).all()
    assert 0 <= queries[0] <= queries[-1] < span[1] - span[0]
    np.testing.assert_array_equal(queries, sampling.sampled(span, len(chosen)))
