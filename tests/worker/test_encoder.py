"""The encoder against the library that its model was published with, and against itself."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from longspan.worker.encoding.encoder import Encoder
from longspan.worker.encoding.job import JobId
from longspan.worker.encoding.packing import TokenIds, pack
from longspan.worker.encoding.scheduler import Plan, PlannedText
from longspan.worker.model_files import find_model
from tests.support.data import EXAMPLES
from tests.worker.models import load, save_tiny_model, skip_without_embedded

SENTENCES = [
    "a",
    "The supplier shall indemnify the customer against all claims.",
    "What is the notice period for termination without cause?",
    "Either party may terminate this Agreement upon thirty (30) days' written notice.",
    "E = mc², 3.14159, 100% — “quoted” & <b>tagged</b>",
    "Der Vertrag verlängert sich um ein Jahr.",
    "Le fournisseur garantit la conformité du service.",
    "合同自双方签字之日起生效。",
    "Договор вступает в силу с момента подписания.",
    "契約は署名の日に発効する。",
    "🙂 emoji and\ttabs\nand lines",
    "word " * 400,
]


@pytest.fixture(scope="module")
def embedded() -> Encoder:
    """The embedded model."""
    skip_without_embedded()
    return load("embedded")


@pytest.fixture(scope="module")
def passages() -> list[str]:
    """Sentences of several languages, and the paragraphs of a contract."""
    contract = (EXAMPLES / "services-agreement.md").read_text("utf-8")
    paragraphs = [p for p in contract.split("\n\n") if len(p) > 200]
    return SENTENCES + paragraphs[:10]


def tokenize(texts: list[str], max_tokens: int) -> list[TokenIds]:
    """Token ids without special tokens, truncated as the model's authors do."""
    tokenizer = Tokenizer.from_file(str(find_model("embedded").folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return [np.array(tokenizer.encode(text).ids[1:-1], np.uint32) for text in texts]


def test_vectors_equal_those_of_sentence_transformers(
    embedded: Encoder, passages: list[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        folder = str(find_model("embedded").folder)
        reference = SentenceTransformer(folder, device="cpu", local_files_only=True)
        expected = reference.encode(passages, normalize_embeddings=True)
    got = embedded.encode(tokenize(passages, embedded.rules.max_tokens))
    assert len(passages) >= 20
    assert got.dtype == np.float32
    assert ((got * expected).sum(axis=1) >= 0.9999).all()
    assert np.abs(got - expected).max() < 1e-5


def test_a_vector_does_not_depend_on_its_batch(embedded: Encoder, passages: list[str]) -> None:
    texts = tokenize(passages, embedded.rules.max_tokens)
    packed = embedded.encode(texts)
    alone = np.concatenate([embedded.encode([text]) for text in texts])
    backwards = embedded.encode(texts[::-1])[::-1]
    assert np.abs(packed - alone).max() < 1e-6
    assert np.abs(packed - backwards).max() < 1e-6


def test_a_tiny_folder_equals_the_unmodified_model_on_padded_batches(tmp_path: Path) -> None:
    from transformers import BertModel

    folder = save_tiny_model(tmp_path)
    encoder = load(folder)
    plain = BertModel.from_pretrained(folder, add_pooling_layer=False)
    texts = [np.arange(4, 4 + n, dtype=np.uint32) for n in (1, 5, 16)]
    ids = torch.zeros(3, 18, dtype=torch.long)
    mask = torch.zeros(3, 18, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text) + 2] = torch.tensor([2, *text.tolist(), 3])
        mask[row, : len(text) + 2] = 1
    with torch.inference_mode():
        hidden = plain(ids, attention_mask=mask).last_hidden_state
    means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    expected = torch.nn.functional.normalize(means, dim=-1).numpy()
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-6)


def test_a_step_yields_one_unit_row_per_text(tmp_path: Path) -> None:
    encoder = load(save_tiny_model(tmp_path))
    texts = [np.full(n, 5, "<u4").tobytes() for n in (3, 30, 1)]
    rows = encoder.run(Plan(tuple(PlannedText(JobId(1), text) for text in texts)))
    vectors = np.array([np.frombuffer(row, "<f4") for row in rows])
    assert vectors.shape == (3, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_positions_restart_with_every_text() -> None:
    texts = [np.array([2, 9, 3], np.uint32), np.array([2, 3], np.uint32)]
    row = pack(texts, torch.device("cpu"))
    assert row.ids.tolist() == [[2, 9, 3, 2, 3]]
    assert row.positions.tolist() == [[0, 1, 2, 0, 1]]
    assert row.segments.offsets.tolist() == [0, 3, 5]


def test_a_long_step_allocates_no_square_of_its_length(tmp_path: Path) -> None:
    """A mask of 6,000 x 6,000 booleans alone would take 36 MB; the tiny step takes far less."""
    encoder = load(save_tiny_model(tmp_path))
    texts = [np.full(38, 5, np.uint32)] * 150
    encoder._tile_tokens = 1 << 20  # one forward pass, as on a GPU
    with torch.profiler.profile(profile_memory=True) as profile:
        encoder.encode(texts)
    largest = max(event.self_cpu_memory_usage for event in profile.events() or ())
    assert largest < 6000 * 64 * 4 * 2
