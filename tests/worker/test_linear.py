"""Linear attention: its forms agree, its far state is disjoint, random features converge."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.far_linear import FarLinear
from longspan.worker.attention.layer_plan import layer_plan
from longspan.worker.attention.linear.chunked import attend_chunked
from longspan.worker.attention.linear.favor import favor
from longspan.worker.attention.linear.feature_maps import FeatureMap, elu, exp, relu
from longspan.worker.attention.linear.hedgehog import Hedgehog
from longspan.worker.attention.linear.naive import (
    attend_beyond,
    attend_quadratic,
    attend_recurrent,
    empty_state,
)
from longspan.worker.attention.linear.state import look, state_of
from longspan.worker.attention.merge import joined, merge
from longspan.worker.attention.naive_policy import unseen_pages, visible
from longspan.worker.attention.policy import FULL
from longspan.worker.attention.selection import STRIDE, Selection
from longspan.worker.attention.zones import NO_ZONES, Zones
from tests.worker.test_policies import (
    BACKENDS,
    CPU,
    DIM,
    HEADS,
    KV_HEADS,
    LINEAR,
    SCALE,
    Document,
    assert_close,
    hedgehog,
)

MAPS = ["exp", "relu", "elu", "hedgehog", "favor"]


@torch.no_grad()
def maps(name: str, *, kv_heads: int = KV_HEADS) -> FeatureMap:
    """The map of this name, for these documents; Hedgehog's with weights of its own."""
    numbers = torch.Generator().manual_seed(1)
    match name:
        case "hedgehog":
            return hedgehog(kv_heads)
        case "favor":
            return favor(DIM, 64, numbers)
    return {"exp": exp, "relu": relu, "elu": elu}[name]()


def packed(name: str, tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of queries and keys, and values."""
    document, found = Document(tokens, seed=seed), maps(name)
    query, keys = found.query(document.query / 2), found.key(document.keys / 2)
    return query, keys, document.values


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(MAPS),
    tokens=st.integers(1, 200),
    cuts=st.sets(st.integers(1, 199), max_size=4),
    chunk=st.integers(1, 70),
    seed=st.integers(0, 5),
)
def test_all_forms_agree_at_any_cut(
    name: str, tokens: int, cuts: set[int], chunk: int, seed: int
) -> None:
    """Chunked, quadratic and recurrent; the state is handed over in the middle of anything."""
    query, keys, values = packed(name, tokens, seed)
    whole = attend_quadratic(query, keys, values)
    for form in ("chunked", "recurrent"):
        state, parts = empty_state(KV_HEADS, keys.shape[-1], DIM), []
        bounds = [0, *sorted(cut for cut in cuts if cut < tokens), tokens]
        for first, last in pairwise(bounds):
            own = query[first:last], keys[first:last], values[first:last]
            if form == "chunked":
                done, state = attend_chunked(*own, state, chunk=chunk)
            else:
                done, state = attend_recurrent(*own, state)
            parts.append(done)
        assert_close(whole, joined(parts))


def test_states_of_disjoint_keys_add_up() -> None:
    """Looking at the sum is merging what is seen in each by its log-sum-exp."""
    query, keys, values = packed("hedgehog", 120, 3)
    one, other = state_of(keys[:50], values[:50]), state_of(keys[50:], values[50:])
    both = look(query, one.plus(other))
    assert_close(both, merge([look(query, one), look(query, other)]))
    assert_close(both, look(query, state_of(keys, values)))


def test_a_query_without_features_sees_nothing() -> None:
    """Its part has no mass, and merges to nothing."""
    document = Document(40)
    features = torch.zeros(40, HEADS, DIM)
    blind = look(features, state_of(maps("relu").key(document.keys), document.values))
    assert bool((blind.lse == float("-inf")).all())
    sighted = document.reference(FULL, NO_ZONES)
    assert_close(sighted, merge([sighted, blind]))


def test_random_features_become_softmax() -> None:
    """FAVOR+ is unbiased: with more and more features only the limit is left."""
    document = Document(150, seed=2)
    # Their variance grows with the exponential of these norms.
    document.query, document.keys = document.query / 2, document.keys / 2
    expected = document.reference(FULL, NO_ZONES)
    errors = []
    for features in (64, 1024, 16_384):
        drawn = []
        for seed in range(4):
            found = favor(DIM, features, torch.Generator().manual_seed(seed))
            query, keys = (x * SCALE**0.5 for x in (document.query, document.keys))
            actual = attend_quadratic(found.query(query), found.key(keys), document.values)
            drawn.append((actual.out - expected.out).norm() / expected.out.norm())
        errors.append(float(torch.stack(drawn).mean()))
    assert errors[0] > 2 * errors[1] > 2 * errors[2]
    assert errors[2] < 0.05


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("backend", ["cpu", "flash2"])
def test_a_linear_far_state_is_what_is_written_out(name: str, backend: str) -> None:
    """First pages, window and selected ones exactly, all others once, by their features."""
    assert_written_out(name, backend, Document(1700, seed=5))


@pytest.mark.parametrize("name", ["elu", "hedgehog"])
def test_latents_have_a_linear_far_state_too(name: str) -> None:
    """MLA: one kv head whose values are a part of its keys."""
    assert_written_out(name, "cpu", Document(1700, latent=True))


def assert_written_out(name: str, backend: str, document: Document) -> None:
    """A document, a task and an answer, as an engine reads them."""
    kv_heads = document.keys.shape[1]
    found = maps(name, kv_heads=kv_heads)
    document.keep_sums(found)
    zones = Zones(1600, 1690)
    near = visible(document.query, document.keys, LINEAR, zones, stride=STRIDE)
    far = unseen_pages(near)
    assert bool(far.any())
    assert bool(((near | far) == (torch.arange(1700)[:, None] >= torch.arange(1700))).all()), (
        "every key is seen once"
    )
    expected = attend_beyond(
        near, far, document.query, document.keys, document.values, found, scale=SCALE
    )
    cuts = [1024, 1600, 1690, *range(1691, 1700)]
    actual = document.attend(BACKENDS[backend], LINEAR, zones, cuts)
    assert_close(expected, actual)


def test_what_is_left_of_a_sum_by_rounding_has_no_mass() -> None:
    """A query that looks for what only its own choices hold sees no far key."""
    document = Document(2560, seed=6)
    document.query = document.query.abs()
    numbers = torch.Generator().manual_seed(2)
    present = 0.1 * torch.rand(256, *document.keys.shape[1:], generator=numbers)
    document.keys[:] = -1
    document.keys[:256] = present
    # These two are chosen; what their sums differ by is no round number.
    document.keys[512:768] = 90 * present + 0.1
    document.keys[1280:1536] = 7 * present
    document.keep_sums(maps("relu"))
    document.write(0, 2560)
    (blocks,) = layer_plan(document.rows(2304, 2560), [LINEAR], [NO_ZONES]).selecting
    query = document.query[2304:]
    selected = Selection(blocks, CPU).select(query, document.layer)
    assert set(selected.flatten().tolist()) == set(document.table[[2, 5]].tolist())
    found = FarLinear(blocks, CPU).attend(query, document.layer, selected, scale=SCALE)
    assert bool((found.lse == float("-inf")).all())
    assert bool((found.out == 0).all())


def test_a_far_state_changes_no_page_before_it() -> None:
    """Causality: what comes later changes no earlier output."""
    outs = []
    for change in (0, 1):
        document = Document(1800, seed=4)
        for x in (document.query, document.keys, document.values):
            x[1536:] += change
        document.keep_sums(maps("elu"))
        cuts = [512, 1024, 1536]
        outs.append(document.attend(CpuBackend(), LINEAR, NO_ZONES, cuts).out)
    assert torch.equal(outs[0][:1536], outs[1][:1536])
    assert not torch.equal(outs[0][1536:], outs[1][1536:])


def test_hedgehog_learns_what_softmax_does() -> None:
    """A few steps of distillation take it closer to the layer that it stands for."""
    document = Document(200, seed=1)
    query, keys = (x * 3 * SCALE**0.5 for x in (document.query, document.keys))
    exact = Document(200, seed=1)
    exact.query, exact.keys = document.query * 3, document.keys * 3
    expected = exact.reference(FULL, NO_ZONES).out
    found = Hedgehog(HEADS, KV_HEADS, DIM)
    optimizer = torch.optim.Adam(found.parameters(), 0.02)
    losses = []
    for _ in range(30):
        out = attend_quadratic(found.query(query), found.key(keys), document.values).out
        loss = (out - expected).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
