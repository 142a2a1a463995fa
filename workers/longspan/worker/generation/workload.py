"""Sequences as an engine's workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker import events
from longspan.worker.generation import wire
from longspan.worker.generation.outcomes import Outcome, Refused, Sampled
from longspan.worker.generation.plan import SequenceId, StepPlan
from longspan.worker.generation.runner import Runner
from longspan.worker.generation.scheduler import Scheduler
from longspan.worker.kv.chain import KeySpace
from longspan.worker.sampling.grammar import BadGrammar
from longspan.worker.sampling.output import Output, Outputs
from longspan.worker.sampling.sampler import SamplingRow, sample


@dataclass(frozen=True, slots=True)
class PageSpace:
    """What makes KV pages of one worker differ from those of another; the tenant comes on top."""

    fingerprint: str
    dtype: str
    policy: str
    layout: int

    def of(self, tenant: str) -> KeySpace:
        """The keys of a tenant's pages."""
        return KeySpace(
            tenant=tenant,
            fingerprint=self.fingerprint,
            dtype=self.dtype,
            policy=self.policy,
            layout=self.layout,
        )


class Generation:
    """The sequences of one stream; see ``Workload``.

    Every sequence of the scheduler has its output here, until its terminal event.
    """

    def __init__(
        self, runner: Runner, scheduler: Scheduler, outputs: Outputs, space: PageSpace
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._outputs = outputs
        self._space = space
        self._open: dict[SequenceId, Output] = {}

    @property
    def jobs(self) -> int:
        """Sequences that have not ended."""
        return self._scheduler.sequences

    @property
    def running(self) -> Sequence[int]:
        """Sequences in the open step."""
        return self._scheduler.running

    def handle(self, request: pb.ExecuteRequest, now: float) -> list[pb.Event]:
        """Take an Open, an Append or a Cancel."""
        match request.WhichOneof("command"):
            case "open":
                return self._begin(request.open, now)
            case "append":
                return self._append(request.append)
            case "cancel":
                outcome = self._scheduler.cancel(SequenceId(request.cancel.job_id))
                return self._told([outcome] if outcome else [])
            case "encode":
                return [events.failed(request.encode.job_id, "NO_ENCODER", "this worker decodes")]
        return []

    def plan(self, now: float) -> StepPlan | None:
        """See ``Scheduler.plan``."""
        return self._scheduler.plan(now)

    def run(self, plan: StepPlan) -> list[int]:
        """The tokens of the chunks that sample, in their order."""
        logits = self._runner.run(plan)
        return sample(logits, [self._row(sequence_id) for sequence_id in plan.sampled])

    def commit(self, plan: StepPlan, result: Sequence[int]) -> list[pb.Event]:
        """Give each sequence its token."""
        sampled: dict[SequenceId, Sampled] = {}
        generated: list[pb.Event] = []
        for sequence_id, token in zip(plan.sampled, result, strict=True):
            output = self._open[sequence_id]
            first = output.index
            step = output.push(token)
            sampled[sequence_id] = Sampled(token, step.finish)
            generated.append(wire.generated(sequence_id, first, [token], step.text))
        return generated + self._told(self._scheduler.commit(plan, sampled))

    def events(self) -> list[pb.Event]:
        """Ends and progress outside of steps."""
        return self._told(self._scheduler.outcomes())

    def next_wakeup(self, now: float) -> float | None:
        """See ``Scheduler.next_wakeup``."""
        return self._scheduler.next_wakeup(now)

    def close(self) -> None:
        """Release the pages of every sequence."""
        for sequence_id in list(self._open):
            self._scheduler.cancel(sequence_id)
        self._open.clear()

    def _begin(self, message: pb.Open, now: float) -> list[pb.Event]:
        sequence_id = SequenceId(message.job_id)
        try:
            params = wire.sampling(message.sampling)
            output = self._outputs.open(params)
            delivered = wire.tokens(message.delivered)
            output.replay(delivered.tolist())
            spec = wire.spec(message, self._space.of(message.tenant), params.max_tokens, now)
            self._scheduler.open(spec, now)
        except BadGrammar as error:
            return [events.failed(sequence_id, "BAD_GRAMMAR", str(error))]
        except ValueError as error:
            return [events.failed(sequence_id, "BAD_REQUEST", str(error))]
        except Refused as refusal:
            return [events.failed(sequence_id, refusal.reason.value, str(refusal))]
        self._open[sequence_id] = output
        return []

    def _append(self, message: pb.Append) -> list[pb.Event]:
        sequence_id = SequenceId(message.job_id)
        self._scheduler.append(sequence_id, wire.tokens(message.tokens), seal=message.seal)
        return self._told(self._scheduler.outcomes())

    def _row(self, sequence_id: SequenceId) -> SamplingRow:
        output = self._open[sequence_id]
        return SamplingRow(output.params, output.index, output.mask())

    def _told(self, outcomes: Sequence[Outcome]) -> list[pb.Event]:
        """Events of outcomes; a sequence that ended is forgotten."""
        for outcome in outcomes:
            if wire.is_end(outcome):
                self._open.pop(outcome.sequence_id, None)
        return [wire.event(outcome) for outcome in outcomes]
