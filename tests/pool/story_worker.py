"""A decoder worker process whose tokens are hashes: small, quick, and able to fail on demand.

The next token is a hash of the prompt and of all tokens before it, so that what a replay
says can be compared byte for byte with what an undisturbed worker would have said. Some
tokens have no text of their own: it comes with the next token's, as half of a character does.
Of attention policies it knows the names; its figures say what it was told (``kv_bytes``).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc.aio

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.internal.v1 import worker_service_pb2_grpc as pb_grpc

VOCABULARY = 1000
TOKEN_BYTES = 4
POLICIES = ("full", "window", "hybrid")


def wire(*ids: int) -> bytes:
    """Token ids, little-endian uint32."""
    return b"".join(number.to_bytes(TOKEN_BYTES, "little") for number in ids)


def numbers(ids: bytes) -> list[int]:
    """The reverse of ``wire``."""
    return [int.from_bytes(ids[at : at + 4], "little") for at in range(0, len(ids), 4)]


class Story:
    """What follows a prompt.

    Args:
        prompt: token ids as the wire has them.
        said: tells this text, one token a character, instead of hashes.
    """

    def __init__(self, prompt: bytes, seed: int, max_tokens: int, said: str | None = None) -> None:
        self._hash = hashlib.sha256(seed.to_bytes(8, "little") + prompt)
        self._max_tokens = max_tokens
        self._said = said
        self._held = ""
        self.tokens = 0
        self.finish: pb.FinishReason | None = None

    def next(self) -> tuple[int, str]:
        """The next token, and the text that it completes."""
        if self._said is not None:
            token = ord(self._said[self.tokens])
        else:
            word = int.from_bytes(self._hash.digest()[:4], "little")
            token = word % VOCABULARY
        return token, self.take(token)

    def take(self, token: int) -> str:
        """Go on behind a token; the text that it completes."""
        self._hash.update(wire(token))
        self.tokens += 1
        text = chr(token) if self._said is not None else f"{token} "
        if self.tokens == self._max_tokens:
            self.finish = pb.FINISH_REASON_LENGTH
        elif self.tokens == len(self._said or "") or (self._said is None and token < 3):
            self.finish = pb.FINISH_REASON_STOP
        if self._said is None and token % 5 == 0 and self.finish is None:
            self._held += text
            return ""
        text, self._held = self._held + text, ""
        return text


def story(prompt: Sequence[int], *, seed: int = 0, max_tokens: int) -> str:
    """All that an undisturbed worker says."""
    told, text = Story(wire(*prompt), seed, max_tokens), ""
    while told.finish is None:
        text += told.next()[1]
    return text


@dataclass
class Telling:
    """One open sequence."""

    open: pb.Open
    prompt: bytearray
    sealed: bool
    task_start: int
    read: int = 0
    cached: int = 0
    story: Story | None = None

    @property
    def length(self) -> int:
        """Tokens of the prompt so far."""
        return len(self.prompt) // TOKEN_BYTES

    @property
    def readable(self) -> int:
        """Tokens to read now; like a decoder it keeps back the last while more may follow."""
        return self.length if self.sealed else self.length - 1

    @property
    def told(self) -> int:
        """Tokens made so far, by earlier workers too."""
        return self.story.tokens if self.story else len(self.open.delivered) // TOKEN_BYTES


class Engine(pb_grpc.WorkerServiceServicer):
    """One stream; every step reads a chunk or makes a token of each sequence."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._events: asyncio.Queue[list[pb.Event]] = asyncio.Queue(4096)
        self._open: dict[int, Telling] = {}
        self._running: list[int] = []
        self._pages: set[bytes] = set()
        self._changed = asyncio.Event()
        self._step = 0

    async def Execute(
        self, request_iterator: AsyncIterator[pb.ExecuteRequest], context: object
    ) -> AsyncIterator[pb.ExecuteResponse]:
        tasks = [
            asyncio.create_task(self._read(request_iterator)),
            asyncio.create_task(self._beat()),
            asyncio.create_task(self._engine()),
        ]
        try:
            yield pb.ExecuteResponse(events=[pb.Event(ready=self._ready())])
            while True:
                yield pb.ExecuteResponse(events=await self._events.get())
        finally:
            for task in tasks:
                task.cancel()

    def _ready(self) -> pb.Ready:
        return pb.Ready(
            model="story",
            fingerprint=self._options.fingerprint,
            dtype="float32",
            max_tokens=self._options.context,
            kv_tokens=self._options.context,
            device=self._options.device,
            attention=[
                pb.AttentionPolicy(name=name, max_tokens=self._context(name)) for name in POLICIES
            ],
        )

    def _context(self, policy: str) -> int:
        positions = self._options.positions or self._options.context
        return int(positions if policy == "window" else self._options.context)

    async def _read(self, requests: AsyncIterator[pb.ExecuteRequest]) -> None:
        async for request in requests:
            match request.WhichOneof("command"):
                case "open":
                    await self._begin(request.open)
                case "append":
                    await self._append(request.append)
                case "inventory":
                    await self._hold(request.inventory)
                case "forget":
                    forgotten = pb.Forgotten(request_id=request.forget.request_id)
                    await self._events.put([pb.Event(forgotten=forgotten)])
                case "cancel" if request.cancel.job_id in self._open:
                    job_id = request.cancel.job_id
                    await self._end(job_id, pb.Event(cancelled=pb.Cancelled(job_id=job_id)))
            self._changed.set()

    async def _hold(self, inventory: pb.Inventory) -> None:
        """It has nothing, and says so when it likes."""
        holdings = pb.Event(holdings=pb.Holdings(request_id=inventory.request_id))
        if not self._options.answer_s:
            await self._events.put([holdings])
            return
        loop = asyncio.get_running_loop()
        loop.call_later(self._options.answer_s, self._events.put_nowait, [holdings])

    async def _begin(self, opened: pb.Open) -> None:
        assert opened.job_id not in self._open, "opened twice"
        reason = self._options.refuse
        if reason is not None:
            failed = pb.Failed(job_id=opened.job_id, reason=reason, message="as asked")
            await self._events.put([pb.Event(failed=failed)])
            return
        self._open[opened.job_id] = Telling(
            opened, bytearray(opened.prompt), opened.sealed, opened.task_start
        )

    async def _append(self, append: pb.Append) -> None:
        telling = self._open.get(append.job_id)
        if telling is not None:
            assert not telling.sealed, "appended to after the seal"
            telling.prompt += append.tokens
            telling.sealed = append.seal
            telling.task_start = append.task_start

    async def _end(self, job_id: int, event: pb.Event) -> None:
        del self._open[job_id]
        await self._events.put([event])

    async def _beat(self) -> None:
        while True:
            await self._send_heartbeat()
            await asyncio.sleep(self._options.beat_s)

    async def _send_heartbeat(self) -> None:
        heartbeat = pb.Heartbeat(
            step=self._step,
            busy=bool(self._running),
            jobs=len(self._open),
            running=self._running,
        )
        await self._events.put([pb.Event(heartbeat=heartbeat)])

    async def _engine(self) -> None:
        while True:
            self._running = [job for job, one in self._open.items() if _can_go_on(one)][:32]
            if not self._running:
                self._changed.clear()
                await self._changed.wait()
                continue
            await self._run_step()

    async def _run_step(self) -> None:
        if self._options.announce:
            await self._send_heartbeat()
            await asyncio.sleep(0.01)
        self._misbehave()
        await asyncio.sleep(self._options.step_s)
        events: list[pb.Event] = []
        for job_id in self._running:
            telling = self._open.get(job_id)
            if telling is not None:
                events += self._advance(job_id, telling)
        self._running = []
        self._step += 1
        await self._events.put(events)

    def _misbehave(self) -> None:
        for job_id in self._running:
            telling = self._open[job_id]
            end = (telling.read + self._options.chunk) * TOKEN_BYTES
            part = numbers(bytes(telling.prompt[telling.read * TOKEN_BYTES : end]))
            if self._options.poison in part:
                os.abort()
            if telling.sealed and not part and self._options.poison_token == telling.told:
                os.abort()

    def _advance(self, job_id: int, telling: Telling) -> list[pb.Event]:
        if telling.read < telling.readable:
            start = telling.read
            telling.read = min(telling.readable, start + self._options.chunk)
            page = bytes(telling.prompt[: telling.read * TOKEN_BYTES])
            if telling.cached == start and page in self._pages:
                telling.cached = telling.read
            self._pages.add(page)
            prefilled = pb.Prefilled(job_id=job_id, tokens=telling.read, cached=telling.cached)
            return [pb.Event(prefilled=prefilled)]
        return self._tell(job_id, telling)

    def _tell(self, job_id: int, telling: Telling) -> list[pb.Event]:
        if telling.story is None:
            sampling = telling.open.sampling
            telling.story = Story(
                bytes(telling.prompt), sampling.seed, sampling.max_tokens, self._options.say
            )
            for token in numbers(telling.open.delivered):
                telling.story.take(token)
        first = telling.story.tokens
        token, text = telling.story.next()
        generated = pb.Generated(job_id=job_id, first=first, tokens=wire(token), text=text)
        events = [pb.Event(generated=generated)]
        if telling.story.finish is not None:
            del self._open[job_id]
            events.append(pb.Event(finished=self._finished(job_id, telling)))
        return events

    def _finished(self, job_id: int, telling: Telling) -> pb.Finished:
        assert telling.story is not None
        assert telling.story.finish is not None
        return pb.Finished(
            job_id=job_id,
            reason=telling.story.finish,
            prompt_tokens=telling.length,
            cached_tokens=telling.cached,
            output_tokens=telling.story.tokens,
            attention=telling.open.attention,
            kv_bytes=kv_bytes(telling.length, telling.task_start),
            seen_share=0.5,
        )


def kv_bytes(prompt_tokens: int, task_start: int) -> int:
    """What a worker answers that was told these numbers."""
    return 1_000_000 * prompt_tokens + task_start


def _can_go_on(telling: Telling) -> bool:
    return telling.sealed or telling.read < telling.readable


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--step-s", type=float, default=0.0)
    parser.add_argument("--beat-s", type=float, default=0.1)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--context", type=int, default=100_000)
    parser.add_argument("--positions", type=int, default=0)
    parser.add_argument("--say")
    parser.add_argument("--fingerprint", default="feed")
    parser.add_argument("--poison", type=int, default=-1)
    parser.add_argument("--poison-token", type=int, default=-1)
    parser.add_argument("--refuse")
    parser.add_argument("--announce", action="store_true")
    parser.add_argument("--answer-s", type=float, default=0.0)
    parser.add_argument("--start-s", type=float, default=0.0)
    return parser.parse_args()


async def serve(options: argparse.Namespace) -> None:
    """Listen until standard input ends."""
    server = grpc.aio.server()
    pb_grpc.add_WorkerServiceServicer_to_server(Engine(options), server)
    server.add_insecure_port(f"unix:{options.socket}")
    await server.start()
    await asyncio.to_thread(sys.stdin.buffer.read)
    await server.stop(0)


def main() -> None:
    """Run one worker."""
    options = parse()
    time.sleep(options.start_s)
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()
