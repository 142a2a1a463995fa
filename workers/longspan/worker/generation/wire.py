"""Sequences as the wire contract has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker import events
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.generation.outcomes import (
    FinishReason,
    Outcome,
    SequenceCancelled,
    SequenceFailed,
    SequenceFinished,
    SequencePrefilled,
)
from longspan.worker.generation.plan import SequenceId
from longspan.worker.generation.policies import ServedPolicy
from longspan.worker.generation.sequence import SequenceSpec
from longspan.worker.kv.chain import KeySpace
from longspan.worker.sampling.output import Output
from longspan.worker.sampling.params import GrammarKind, GrammarSpec, SamplingParams

TOKEN_BYTES = 4

REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
}


def tokens(data: bytes, vocabulary: int) -> npt.NDArray[np.uint32]:
    """Token ids from little-endian uint32.

    Raises:
        ValueError: the bytes are no whole number of ids, or one is not of the model's.
    """
    ids = np.frombuffer(data, "<u4").astype(np.uint32, copy=False)
    if len(ids) and ids.max() >= vocabulary:
        raise ValueError(f"token {ids.max()}; the vocabulary has {vocabulary}")
    return ids


def spec(
    message: pb.Open,
    keys: KeySpace,
    prompt: npt.NDArray[np.uint32],
    delivered: npt.NDArray[np.uint32],
    params: SamplingParams,
    served: ServedPolicy,
    now: float,
) -> SequenceSpec:
    """What the scheduler needs to know of an Open."""
    return SequenceSpec(
        sequence_id=SequenceId(message.job_id),
        keys=keys,
        prompt=prompt,
        sealed=message.sealed,
        delivered=delivered,
        max_tokens=params.max_tokens,
        priority=message.priority,
        deadline_s=now + message.deadline_ms / 1000 if message.deadline_ms else None,
        policy=served.policy,
        retentions=served.retentions,
        task_start=message.task_start or None,
        subject=message.subject,
    )


def replayed(message: pb.Open, output: Output, policy: ModelPolicy) -> pb.Event:
    """The end of a sequence all of whose tokens were delivered by an earlier worker."""
    assert output.finish is not None
    return pb.Event(
        finished=pb.Finished(
            job_id=message.job_id,
            reason=REASONS[output.finish],
            prompt_tokens=len(message.prompt) // TOKEN_BYTES,
            output_tokens=output.index,
            attention=policy.name,
        )
    )


def sampling(message: pb.Sampling) -> SamplingParams:
    """How tokens are chosen.

    Raises:
        ValueError: a field is out of its range.
    """
    return SamplingParams(
        max_tokens=message.max_tokens,
        temperature=message.temperature,
        top_k=message.top_k,
        top_p=message.top_p,
        min_p=message.min_p,
        seed=message.seed,
        stop_texts=tuple(message.stop_texts),
        stop_tokens=tuple(message.stop_tokens),
        answer_begins=message.answer_begins,
        grammar=_grammar(message.grammar) if message.HasField("grammar") else None,
    )


def _grammar(message: pb.Grammar) -> GrammarSpec:
    match message.WhichOneof("kind"):
        case "json_schema":
            return GrammarSpec(GrammarKind.JSON_SCHEMA, message.json_schema, message.begins_after)
        case "regex":
            return GrammarSpec(GrammarKind.REGEX, message.regex, message.begins_after)
    raise ValueError("a grammar of no kind")


def generated(
    sequence_id: SequenceId, first: int, new_tokens: Sequence[int], text: str
) -> pb.Event:
    """What one step added to a sequence."""
    data = np.array(new_tokens, "<u4").tobytes()
    return pb.Event(generated=pb.Generated(job_id=sequence_id, first=first, tokens=data, text=text))


def is_end(outcome: Outcome) -> bool:
    """True for a terminal outcome."""
    return not isinstance(outcome, SequencePrefilled)


def event(outcome: Outcome, *, kv_bytes: int = 0) -> pb.Event:
    """An outcome as the server hears of it; ``kv_bytes`` is what it held at its end."""
    match outcome:
        case SequencePrefilled(sequence_id, count, cached, missing):
            return pb.Event(
                prefilled=pb.Prefilled(
                    job_id=sequence_id, tokens=count, cached=cached, missing=missing
                )
            )
        case SequenceFinished():
            return pb.Event(
                finished=pb.Finished(
                    job_id=outcome.sequence_id,
                    reason=REASONS[outcome.reason],
                    prompt_tokens=outcome.prompt_tokens,
                    cached_tokens=outcome.cached_tokens,
                    output_tokens=outcome.output_tokens,
                    attention=outcome.policy,
                    kv_bytes=kv_bytes,
                    seen_share=outcome.seen_share,
                )
            )
        case SequenceFailed(sequence_id, reason, message):
            return events.failed(sequence_id, reason.value, message)
        case SequenceCancelled(sequence_id):
            return events.cancelled(sequence_id)
