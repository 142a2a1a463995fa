"""llama.cpp through llama-cpp-python's low-level interface: no Python work on logits.

    python -m benchmarks.peers.llama_cpp_engine FILE THREADS [FLASH]

Runs under the interpreter that has ``llama_cpp``. Several requests are read one after the other
and then decoded in one batch, as llama.cpp's server does with its slots.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp as lib  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.peers.protocol import Answer, Clock, Engine, Work, serve

BATCH_TOKENS = 2048
MICRO_BATCH_TOKENS = 512
"""llama.cpp's defaults."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One token of a batch."""

    token: int
    position: int
    sequence: int
    samples: bool


class Batch:
    """Tokens for one call of ``llama_decode``; its memory is used again and again."""

    def __init__(self) -> None:
        self._batch = lib.llama_batch_init(BATCH_TOKENS, 0, 1)

    def run(self, context: Any, entries: Sequence[Entry]) -> None:
        """Compute the tokens."""
        batch = self._batch
        batch.n_tokens = len(entries)
        for row, entry in enumerate(entries):
            batch.token[row] = entry.token
            batch.pos[row] = entry.position
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = entry.sequence
            batch.logits[row] = entry.samples
        if lib.llama_decode(context, batch) != 0:
            raise RuntimeError("llama_decode failed")


class LlamaCpp:
    """One loaded model; each piece of work gets a context of its own size."""

    def __init__(self, path: str, threads: int, *, flash: bool) -> None:
        lib.llama_log_set(_silent, ctypes.c_void_p(0))
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(
            path.encode(), lib.llama_model_default_params()
        )
        self._threads = threads
        self._flash = flash
        self._batch = Batch()
        self._greedy = lib.llama_sampler_init_greedy()

    def answer(self, work: Work) -> list[Answer]:
        """Requests that arrive at once; making the context is not timed."""
        context = self._context(work)
        started = time.perf_counter()
        clocks = [Clock(started) for _ in work.prompts]
        for sequence, prompt in enumerate(work.prompts):
            self._read(context, sequence, prompt)
            clocks[sequence].token(self._sample(context, -1))
        for index in range(work.new_tokens - 1):
            self._batch.run(
                context,
                [
                    Entry(clock.tokens[-1], len(prompt) + index, sequence, True)
                    for sequence, (clock, prompt) in enumerate(
                        zip(clocks, work.prompts, strict=True)
                    )
                ],
            )
            for row, clock in enumerate(clocks):
                clock.token(self._sample(context, row))
        lib.llama_free(context)
        return [clock.answer() for clock in clocks]

    def _context(self, work: Work) -> Any:
        params = lib.llama_context_default_params()
        longest = max(map(len, work.prompts)) + work.new_tokens
        params.n_seq_max = len(work.prompts)
        params.n_ctx = -(-longest // 256) * 256 * params.n_seq_max
        params.n_batch, params.n_ubatch = BATCH_TOKENS, MICRO_BATCH_TOKENS
        params.n_threads = params.n_threads_batch = self._threads
        params.flash_attn_type = int(self._flash)
        params.no_perf = True
        context = lib.llama_init_from_model(self._model, params)
        if not context:
            raise RuntimeError("llama.cpp made no context")
        return context

    def _read(self, context: Any, sequence: int, prompt: Sequence[int]) -> None:
        last = len(prompt) - 1
        entries = [
            Entry(token, position, sequence, position == last)
            for position, token in enumerate(prompt)
        ]
        for start in range(0, len(entries), BATCH_TOKENS):
            self._batch.run(context, entries[start : start + BATCH_TOKENS])

    def _sample(self, context: Any, row: int) -> int:
        return int(lib.llama_sampler_sample(self._greedy, context, row))


@lib.llama_log_callback  # type: ignore[untyped-decorator,unused-ignore]
def _silent(level: int, text: bytes, data: object) -> None:
    """llama.cpp's log goes nowhere."""


def start(arguments: Sequence[str]) -> Engine:
    """Load the file."""
    path, threads, *flash = arguments
    return LlamaCpp(path, int(threads), flash=bool(flash)).answer


if __name__ == "__main__":
    serve(start)
