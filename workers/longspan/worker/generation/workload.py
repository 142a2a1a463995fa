"""Sequences as an engine's workload."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import numpy.typing as npt

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker import events
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.generation import wire
from longspan.worker.generation.outcomes import (
    FinishReason,
    Outcome,
    Refused,
    Sampled,
    SequenceFinished,
)
from longspan.worker.generation.outputs import Outputs
from longspan.worker.generation.plan import SequenceId, StepPlan
from longspan.worker.generation.policies import Policies
from longspan.worker.generation.runner import Runner
from longspan.worker.generation.scheduler import Scheduler
from longspan.worker.kv.chain import KeySpace
from longspan.worker.kv.label import Label
from longspan.worker.kv.pages import PageTable
from longspan.worker.sampling.batch_sampler import best
from longspan.worker.sampling.grammar_source import BadGrammar
from longspan.worker.sampling.output import Output
from longspan.worker.sampling.row import SamplingRow
from longspan.worker.sampling.sampler import sample
from longspan.worker.tally import Tally
from longspan.worker.tiers.holdings import Holdings
from longspan.worker.workload import PageCounts

BAD_GRAMMAR = "BAD_GRAMMAR"
BAD_REQUEST = "BAD_REQUEST"
NOT_FINITE = "NOT_FINITE"


@dataclass(frozen=True, slots=True)
class PageSpace:
    """What makes KV pages of one worker differ from those of another; the tenant comes on top."""

    fingerprint: str
    dtype: str
    layout: int

    def of(self, tenant: str, policy: ModelPolicy) -> KeySpace:
        """The keys of a tenant's pages under one policy."""
        return KeySpace(
            tenant=tenant,
            fingerprint=self.fingerprint,
            dtype=self.dtype,
            policy=policy.identity(),
            layout=self.layout,
        )


@dataclass(frozen=True, slots=True)
class KvSizes:
    """What pages cost.

    Attributes:
        frame_bytes: of one of a page's frames.
        summary_bytes: of what stands for a page, by the name of the policy.
    """

    frame_bytes: int
    summary_bytes: Mapping[str, int]

    def held(self, end: SequenceFinished) -> int:
        """Bytes that a sequence held at its end."""
        summaries = end.pages * self.summary_bytes.get(end.policy, 0)
        return end.frames * self.frame_bytes + summaries


class Generation:
    """The sequences of one stream; see ``Workload``.

    Every sequence of the scheduler has its output here, until its terminal event. A fault is
    why a sequence fails where the scheduler only knows that it ends.

    Args:
        sizes: of pages, by the name of the policy.
    """

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        table: PageTable,
        outputs: Outputs,
        space: PageSpace,
        policies: Policies,
        sizes: KvSizes,
        holdings: Holdings,
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._table = table
        self._outputs = outputs
        self._space = space
        self._policies = policies
        self._sizes = sizes
        self._holdings = holdings
        self._open: dict[SequenceId, Output] = {}
        self._step_s = 0.0
        self._faults: dict[SequenceId, tuple[str, str]] = {}

    @property
    def jobs(self) -> int:
        """Sequences that have not ended."""
        return self._scheduler.sequences

    @property
    def running(self) -> Sequence[int]:
        """Sequences in the open step."""
        return self._scheduler.running

    @property
    def pages(self) -> PageCounts:
        """Of the worker's whole pool."""
        return PageCounts(self._table.used, self._table.cached, self._table.total)

    @property
    def tally(self) -> Tally:
        """See ``Scheduler``."""
        return self._scheduler.meter.tally

    @property
    def restoring(self) -> Mapping[SequenceId, int]:
        """How many pages are on their way back from RAM or disk, by job."""
        return self._scheduler.restoring

    def handle(self, request: pb.ExecuteRequest, now: float) -> list[pb.Event]:
        """Take an Open, an Append or a Cancel."""
        match request.WhichOneof("command"):
            case "open":
                return self._begin(request.open, now)
            case "append":
                return self._append(request.append, now)
            case "cancel":
                outcome = self._scheduler.cancel(SequenceId(request.cancel.job_id))
                return self._told([outcome] if outcome else [])
            case "rename":
                rename = request.rename
                old = self._scheduler.rename(SequenceId(rename.job_id), rename.subject)
                if old is not None:
                    self._holdings.rename(old.tenant, old.subject, rename.subject)
            case "inventory":
                self._holdings.inventory(request.inventory)
            case "forget":
                self._scheduler.forget(request.forget.tenant, request.forget.subject)
                self._holdings.forget(request.forget)
            case "verify":
                self._holdings.verify(request.verify)
            case "encode":
                return [events.failed(request.encode.job_id, "NO_ENCODER", "this worker decodes")]
        return []

    def plan(self, now: float) -> StepPlan | None:
        """See ``Scheduler.plan``."""
        return self._scheduler.plan(now)

    def run(self, plan: StepPlan) -> list[int]:
        """The tokens of the chunks that sample, in their order."""
        started = time.perf_counter()
        logits = self._runner.run(plan)
        rows = [self._row(sequence_id) for sequence_id in plan.sampled]
        tokens: list[int] | None = None
        if all(row.params.greedy and row.mask is None for row in rows):
            largest, tokens = best(logits)
        else:
            largest = logits.amax(-1).tolist()
        # A NaN shows in the largest of its row: half precision overflows where weights do.
        for sequence_id, logit in zip(plan.sampled, largest, strict=True):
            if not isfinite(logit):
                self._faults[sequence_id] = (NOT_FINITE, "the model's logits are not finite")
        if tokens is None:
            tokens = sample(logits.nan_to_num() if self._faults else logits, rows)
        self._step_s = time.perf_counter() - started
        return tokens

    def commit(self, plan: StepPlan, result: Sequence[int]) -> list[pb.Event]:
        """Give each sequence its token; what was read is told before what follows from it."""
        sampled: dict[SequenceId, Sampled] = {}
        generated: dict[SequenceId, pb.Event] = {}
        for sequence_id, token in zip(plan.sampled, result, strict=True):
            output = self._open[sequence_id]
            first = output.index
            finish, text = self._push(sequence_id, output, token)
            sampled[sequence_id] = Sampled(token, finish)
            if sequence_id not in self._faults:
                generated[sequence_id] = wire.generated(sequence_id, first, [token], text)
        broken = [self._scheduler.label(one) for one in plan.sampled if self._is_broken(one)]
        outcomes = self._scheduler.commit(plan, sampled, self._step_s)
        for label in broken:
            self._drop(label)
        for outcome in outcomes:
            output, told = self._open[outcome.sequence_id], generated.get(outcome.sequence_id)
            if isinstance(outcome, SequenceFinished) and output.finish is None and told:
                told.generated.text += output.cut()
        progress = [outcome for outcome in outcomes if not wire.is_end(outcome)]
        ends = [outcome for outcome in outcomes if wire.is_end(outcome)]
        return [*self._told(progress), *generated.values(), *self._told(ends)]

    def events(self) -> list[pb.Event]:
        """Ends and progress outside of steps."""
        return [*self._holdings.answers(), *self._told(self._scheduler.outcomes())]

    def next_wakeup(self, now: float) -> float | None:
        """See ``Scheduler.next_wakeup``."""
        return self._scheduler.next_wakeup(now)

    def close(self) -> None:
        """Release the pages of every sequence."""
        for sequence_id in list(self._open):
            self._scheduler.cancel(sequence_id)
        self._open.clear()
        self._faults.clear()

    def _begin(self, message: pb.Open, now: float) -> list[pb.Event]:
        sequence_id = SequenceId(message.job_id)
        try:
            params = wire.sampling(message.sampling)
            output = self._outputs.open(params)
            delivered = self._tokens(message.delivered)
            served = self._policies.get(message.attention)
            if output.replay(delivered.tolist()) is not None:
                return [wire.replayed(message, output, served.policy)]
            prompt = self._tokens(message.prompt)
            keys = self._space.of(message.tenant, served.policy)
            spec = wire.spec(message, keys, prompt, delivered, params, served, now)
            self._scheduler.open(spec, now)
        except BadGrammar as error:
            return [events.failed(sequence_id, BAD_GRAMMAR, str(error))]
        except ValueError as error:
            return [events.failed(sequence_id, BAD_REQUEST, str(error))]
        except Refused as refusal:
            return [events.failed(sequence_id, refusal.reason.value, str(refusal))]
        self._open[sequence_id] = output
        return []

    def _append(self, message: pb.Append, now: float) -> list[pb.Event]:
        sequence_id = SequenceId(message.job_id)
        try:
            tokens = self._tokens(message.tokens)
        except ValueError as error:
            return self._fail(sequence_id, BAD_REQUEST, str(error))
        task_start = message.task_start or None
        self._scheduler.append(
            sequence_id, tokens, seal=message.seal, task_start=task_start, now=now
        )
        return self._told(self._scheduler.outcomes())

    def _tokens(self, data: bytes) -> npt.NDArray[np.uint32]:
        return wire.tokens(data, self._outputs.vocabulary)

    def _row(self, sequence_id: SequenceId) -> SamplingRow:
        output = self._open[sequence_id]
        try:
            return output.row()
        except BadGrammar as error:
            self._faults[sequence_id] = (BAD_GRAMMAR, str(error))
            return SamplingRow(output.params, output.index)

    def _push(
        self, sequence_id: SequenceId, output: Output, token: int
    ) -> tuple[FinishReason | None, str]:
        """Why the sequence ends, if it does, and its new text."""
        if sequence_id in self._faults:
            return FinishReason.STOP, ""
        try:
            step = output.push(token)
        except BadGrammar as error:
            self._faults[sequence_id] = (BAD_GRAMMAR, str(error))
            return FinishReason.STOP, ""
        return step.finish, step.text

    def _is_broken(self, sequence_id: SequenceId) -> bool:
        return self._faults.get(sequence_id, ("", ""))[0] == NOT_FINITE

    def _drop(self, label: Label) -> None:
        """Forget what a document's pages hold, which is no number either, here and below."""
        if label.subject:
            self._scheduler.forget(label.tenant, label.subject)
            self._holdings.drop(label.tenant, label.subject)

    def _fail(self, sequence_id: SequenceId, reason: str, message: str) -> list[pb.Event]:
        """End a sequence for a reason that the scheduler knows nothing of."""
        if sequence_id not in self._open:
            return []
        self._faults[sequence_id] = (reason, message)
        outcome = self._scheduler.cancel(sequence_id)
        return self._told([outcome] if outcome else [])

    def _told(self, outcomes: Sequence[Outcome]) -> list[pb.Event]:
        """Events of outcomes; a sequence that ended is forgotten."""
        return [self._event(outcome) for outcome in outcomes]

    def _event(self, outcome: Outcome) -> pb.Event:
        if not wire.is_end(outcome):
            return wire.event(outcome)
        sequence_id = outcome.sequence_id
        self._open.pop(sequence_id, None)
        fault = self._faults.pop(sequence_id, None)
        if fault:
            return events.failed(sequence_id, *fault)
        held = self._sizes.held(outcome) if isinstance(outcome, SequenceFinished) else 0
        return wire.event(outcome, kv_bytes=held)
