"""The recall model in the engine: full attention finds records, hybrid too, a window does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.recall.architecture import LAYERS, LOCAL_WINDOW
from benchmarks.recall.engine import Engine
from benchmarks.recall.far import MAPS as MAPS_FILE
from benchmarks.recall.linear_run import LinearModel
from benchmarks.recall.linear_state import MAPS
from benchmarks.recall.measure import (
    FEW,
    MANY,
    MODEL,
    WINDOW,
    Recall,
    documents,
    is_between,
    served,
)
from benchmarks.recall.policies import LINEAR, compared
from benchmarks.recall.vocabulary import SIZE, words

from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.generation.attention_maps import read_maps
from longspan.worker.generation.plan import Chunk, SequenceId, StepPlan
from longspan.worker.models.decoder_files import find_decoder
from longspan.worker.models.loading import load_decoder
from longspan.worker.models.probe import probe
from tests.worker.packed_steps import CPU, runner_of

SHORT, LONG = 2048, 8192


@pytest.fixture(scope="module")
def recalls() -> dict[tuple[int, str], tuple[Recall, float]]:
    """Two documents of each length under every policy."""
    engine = Engine(MODEL, compared(), kv_tokens=LONG * 10)
    found = {}
    for tokens in (SHORT, LONG):
        for policy in ("full", "window", "hybrid", "strict", "exact"):
            recall, seen, _ = served(engine, documents(tokens, FEW, 2), policy)
            found[tokens, policy] = recall, seen
    return found


def test_it_loads_as_any_decoder_does() -> None:
    files = find_decoder(MODEL)
    assert files.vocabulary == SIZE
    model = load_decoder(files, device="cpu", dtype="float32")
    parameters = sum(p.numel() for p in model.parameters())
    assert 1_000_000 < parameters < 3_000_000
    windows = [shape.window for shape in probe(model, CPU)]
    assert windows == [LOCAL_WINDOW if kind == "sliding_attention" else None for kind in LAYERS]


def test_its_tokenizer_reads_and_writes_documents() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokens = documents(SHORT, MANY, 1)[0].tokens.tolist()
    text = " ".join(words()[token] for token in tokens)
    assert tokenizer.encode(text).ids == tokens
    assert tokenizer.decode(tokens).strip() == text


@torch.inference_mode()
def test_its_logits_are_those_of_transformers() -> None:
    from transformers import AutoModelForCausalLM

    tokens = documents(SHORT, MANY, 1)[0].tokens[:600]
    eager: Any = AutoModelForCausalLM.from_pretrained(
        MODEL, attn_implementation="eager", dtype=torch.float32
    )
    expected = eager.eval()(input_ids=torch.from_numpy(tokens)[None], use_cache=False).logits[0]
    runner = runner_of(load_decoder(find_decoder(MODEL), device="cpu", dtype="float32"))
    pages = np.array([5, 2, 9], np.int32)
    for start, end in ((0, 300), (300, 599), (599, 600)):
        table = pages[: -(-end // PAGE_TOKENS)]
        part = tokens[start:end].astype(np.uint32)
        logits = runner.run(StepPlan((Chunk(SequenceId(1), start, part, (table,), True),)))[0]
        torch.testing.assert_close(logits, expected[end - 1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tokens", [SHORT, LONG])
def test_full_attention_recalls(
    recalls: dict[tuple[int, str], tuple[Recall, float]], tokens: int
) -> None:
    assert recalls[tokens, "full"][0].everywhere.share >= 0.95


@pytest.mark.parametrize("tokens", [SHORT, LONG])
@pytest.mark.parametrize("policy", ["hybrid", "strict", "exact"])
def test_hybrid_recalls_as_full_does(
    recalls: dict[tuple[int, str], tuple[Recall, float]], tokens: int, policy: str
) -> None:
    full, hybrid = recalls[tokens, "full"][0], recalls[tokens, policy][0]
    assert hybrid.everywhere.share >= full.everywhere.share - 0.02


def test_where_many_compete_scores_find_what_bounds_do_not() -> None:
    """48 records in 8k tokens, for the eight pages that a kv head chooses."""
    engine = Engine(MODEL, compared(), kv_tokens=LONG * 5)
    said = documents(LONG, MANY)
    full, strict, exact, four_bit = (
        served(engine, said, policy)[0].everywhere.share
        for policy in ("full", "strict", "exact", "4bit")
    )
    assert min(exact, four_bit) >= full - 0.02 >= 0.93
    assert strict < min(exact, four_bit)


def test_a_window_does_not(recalls: dict[tuple[int, str], tuple[Recall, float]]) -> None:
    """Outside of it; what it still holds it recalls."""
    window, seen = recalls[LONG, "window"]
    assert seen < 0.5
    assert window.between.asked > 10
    assert window.between.share < 0.05
    # Some of the others lie on an edge of it.
    assert window.everywhere.right > 0.5 * (window.everywhere.asked - window.between.asked)


def test_an_untrained_linear_state_adds_nothing_to_a_window() -> None:
    said = documents(SHORT, MANY, 1)[0]
    between = [record for record in range(len(said.keys)) if is_between(said, record)][:8]
    model = LinearModel(MODEL)
    assert len(between) == 8
    for far in (None, *MAPS.values()):
        assert sum(model.right(said, between, WINDOW, far)) <= 1


def test_its_maps_are_its_own_and_served() -> None:
    """Far states by them: the engine finds nearly all records, as without any."""
    files = find_decoder(MODEL)
    model = load_decoder(files, device="cpu", dtype="float32")
    maps = read_maps(MAPS_FILE, probe(model, CPU), files.fingerprint)
    assert maps.layers.keys() == LINEAR.linear_layers - {0, 1}, "the first two have a window"
    engine = Engine(MODEL, [LINEAR], SHORT * 10, maps.layers)
    recall, seen, _ = served(engine, documents(SHORT, FEW, 1), LINEAR.name)
    assert recall.everywhere.share > 0.8
    assert seen < 1
