"""One document under one policy: everything that is measured of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.seen import seen_share
from longspan.worker.fidelity import sampling
from longspan.worker.fidelity.capture import LOW, Captures
from longspan.worker.fidelity.document import Document
from longspan.worker.fidelity.held import held_bytes
from longspan.worker.fidelity.perplexity import log_probabilities, perplexity, ranks
from longspan.worker.fidelity.prompt import Prompter
from longspan.worker.fidelity.reading import Reading, Tokens, chunks
from longspan.worker.fidelity.session import Session
from longspan.worker.generation.runner import attention_rows

LAST_TOKENS = 512
"""Of the document, at least so many tokens are foretold; their logits are kept."""


@dataclass(frozen=True, slots=True)
class LayerFidelity:
    """See ``Fidelity``, of one layer."""

    mass: float
    mass_p5: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """What a policy made of one document.

    Attributes:
        policy: its name.
        tokens: of the prompt.
        found: the hidden number is in the greedy answer.
        log_probability: of the right number's tokens behind the right answer's first words, the
            mean; natural logarithm.
        rank: the worst place of these tokens among all; 1 where greedy decoding would write
            the number.
        mass: of full attention's softmax, the share on keys that the policy sees; mean over
            sampled queries of the document's second half, heads and layers.
        mass_p5: its fifth percentile.
        error: relative error of the attention output against full attention's on the same
            inputs, over all queries of the watched steps; mean over the layers.
        perplexity: of the document's last tokens.
        seen_share: keys that the prompt's tokens saw, of those that full attention sees.
        kv_bytes: of the pages that the engine holds at the prompt's end.
        prefill_s: seconds in steps of the prompt.
        token_s: seconds for one token of the answer.
    """

    policy: str
    tokens: int
    found: bool
    answer: str
    log_probability: float
    rank: int
    mass: float
    mass_p5: float
    error: float
    perplexity: float
    seen_share: float
    kv_bytes: int
    prefill_s: float
    token_s: float
    layers: tuple[LayerFidelity, ...]


def measure(
    session: Session,
    prompter: Prompter,
    document: Document,
    policy: ModelPolicy,
    *,
    answer_tokens: int,
) -> Fidelity:
    """Read a document under a policy, as the engine does, and ask for the hidden number."""
    reading = Reading(session, policy, document.zones)
    captures = Captures(session.backend, len(session.shapes))
    surprise = _read(reading, document, captures)
    logits = reading.step(document.task_start, document.tokens[document.task_start :], kept=1)
    prefill_s = reading.seconds
    right = _forced(reading, document, logits)
    answer, token_s = _answered(reading, document, logits, answer_tokens)
    text = prompter.decode(answer)
    tokens = len(document.tokens)
    mass, low = captures.mass
    return Fidelity(
        policy=policy.name,
        tokens=tokens,
        found=document.needle.found(text),
        answer=text,
        log_probability=right[0],
        rank=right[1],
        mass=mass,
        mass_p5=low,
        error=captures.error,
        perplexity=surprise,
        seen_share=seen_share(policy, document.zones, tokens, PAGE_TOKENS),
        kv_bytes=held_bytes(policy, session.shapes, session.dtype, tokens),
        prefill_s=prefill_s,
        token_s=token_s,
        layers=tuple(
            LayerFidelity(
                float(layer.all_masses.mean()),
                float(np.percentile(layer.all_masses, LOW)),
                layer.error,
            )
            for layer in captures.layers
        ),
    )


def _read(reading: Reading, document: Document, captures: Captures) -> float:
    """Read the document; the perplexity of its last tokens."""
    tokens, end = document.tokens, document.task_start
    scored = max(end - LAST_TOKENS, PAGE_TOKENS) // PAGE_TOKENS * PAGE_TOKENS
    spans = [
        *chunks(0, scored, reading.session.step_tokens),
        *chunks(scored, end, PAGE_TOKENS),
    ]
    watched = sampling.watched(spans, end)
    total, count = 0.0, 0
    for start, stop in spans:
        observer = None
        if (start, stop) in watched:
            rows = attention_rows((reading.chunk(start, tokens[start:stop]),))
            queries = sampling.sampled((start, stop), len(watched))
            observer = captures.observer(rows, reading.view, queries)
        kept = stop - start if start >= scored else 0
        logits = reading.step(start, tokens[start:stop], kept=kept, observer=observer)
        following = tokens[start + 1 : min(stop + 1, end)][:kept]
        total += float(log_probabilities(logits[: len(following)], following).sum())
        count += len(following)
    return perplexity(total, count)


def _forced(reading: Reading, document: Document, logits: torch.Tensor) -> tuple[float, int]:
    """Mean log-probability and worst rank of the number's tokens in the right answer."""
    right, number = document.prompt.answer, document.prompt.number
    if len(right) > 1:
        start = len(document.tokens)
        more = reading.step(start, right[:-1], kept=len(right) - 1)
        logits = torch.cat((logits, more))
    asked = slice(number.start, number.stop)
    found = log_probabilities(logits[asked], right[asked])
    return float(found.mean()), int(ranks(logits[asked], right[asked]).max())


def _answered(
    reading: Reading, document: Document, logits: torch.Tensor, most: int
) -> tuple[list[int], float]:
    """The greedy answer, and seconds for a token of it."""
    answer = [int(logits[-1].argmax())]
    before, stops = reading.seconds, reading.session.files.stop_tokens
    while len(answer) < most and answer[-1] not in stops:
        place = len(document.tokens) + len(answer) - 1
        last: Tokens = np.array(answer[-1:], np.uint32)
        answer.append(int(reading.step(place, last, kept=1)[-1].argmax()))
    return answer, (reading.seconds - before) / max(len(answer) - 1, 1)
