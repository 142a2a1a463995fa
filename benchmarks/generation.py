"""Generation beside other engines, in one run: transformers, llama.cpp, CTranslate2.

    python -m benchmarks generation --peers PYTHON

Every engine is a process of its own with two threads, loaded with the same random weights in the
same dtype; one of them works at a time. They take turns, are warmed up with small work, and get
fresh prompts in every round, so that no cache carries over. The best round of each counts. All
answers are greedy and of fixed length. ``PYTHON`` is an interpreter that has ``llama_cpp``,
``gguf`` and ``ctranslate2``; without it these are left out. CTranslate2 gets no long document:
it builds the whole matrix of scores. Our engine runs without its server.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.generation_models import HUNDRED_MILLION, write_model
from benchmarks.peers.process import EngineFailed, EngineProcess
from benchmarks.peers.protocol import Answer, Work
from benchmarks.texts import REPOSITORY

THREADS = 2
OURS = "longspan"
GENERATE = "transformers generate"
BATCH = "transformers generate_batch"
LLAMA = "llama.cpp"
CTRANSLATE = "CTranslate2"
VOCABULARY = HUNDRED_MILLION.vocabulary
KV_BYTES = str(2 << 30)
Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Task:
    """One comparison.

    Attributes:
        work: makes the round's requests from its random numbers.
        engines: who takes part, ourselves first.
    """

    name: str
    dtype: str
    engines: Sequence[str]
    rounds: int
    work: Callable[[random.Random], Work]


def prompt(numbers: random.Random, tokens: int) -> list[int]:
    """Random token ids."""
    return [numbers.randrange(VOCABULARY) for _ in range(tokens)]


def requests(numbers: random.Random) -> Work:
    """16 requests of 256 to 2048 tokens, evenly spread, in no order."""
    lengths = [256 + (2048 - 256) * place // 15 for place in range(16)]
    numbers.shuffle(lengths)
    return Work([prompt(numbers, length) for length in lengths], 64)


def questions(numbers: random.Random) -> Work:
    """16 questions about one document."""
    document = prompt(numbers, 8192)
    return Work([document + prompt(numbers, 32) for _ in range(16)], 32)


def single(tokens: int, new_tokens: int) -> Callable[[random.Random], Work]:
    """One request."""
    return lambda numbers: Work([prompt(numbers, tokens)], new_tokens)


FLOAT, BRAIN = "float32", "bfloat16"
TASKS = (
    Task(
        "one request, 1024 + 64 tokens",
        FLOAT,
        (OURS, GENERATE, BATCH, LLAMA, CTRANSLATE),
        3,
        single(1024, 64),
    ),
    Task(
        "16 requests of 256-2048 + 64 tokens",
        FLOAT,
        (OURS, GENERATE, BATCH, LLAMA, CTRANSLATE),
        1,
        requests,
    ),
    Task(
        "16 questions about 8192 tokens, 32 + 32 tokens",
        FLOAT,
        (OURS, BATCH),
        1,
        questions,
    ),
    Task("prefill of 2048 tokens", BRAIN, (OURS, GENERATE, LLAMA), 3, single(2048, 1)),
    Task("decode of 128 tokens after 128", BRAIN, (OURS, GENERATE, LLAMA), 3, single(128, 128)),
    Task("document of 8192 + 128 tokens", BRAIN, (OURS, LLAMA), 1, single(8192, 128)),
    Task("16 requests of 256-2048 + 64 tokens", BRAIN, (OURS, GENERATE, BATCH, LLAMA), 1, requests),
)


@dataclass(frozen=True, slots=True)
class Engines:
    """How each engine is started on the models of a folder.

    Attributes:
        peers: an interpreter with llama.cpp and CTranslate2; None where there is none.
    """

    folder: Path
    peers: str | None

    def start(self, name: str, dtype: str) -> EngineProcess:
        """Start an engine.

        Raises:
            EngineFailed: it cannot be started here; the message says why.
        """
        model = str(self.folder / dtype)
        match name:
            case "longspan":
                module = "benchmarks.generation_engine"
                flags = ("--kv-bytes", KV_BYTES)
                return EngineProcess(module, model, dtype, "cpu", *flags, threads=THREADS)
            case "transformers generate":
                module = "benchmarks.peers.transformers_generate"
                return EngineProcess(module, model, dtype, "cpu", threads=THREADS)
            case "transformers generate_batch":
                module = "benchmarks.peers.transformers_batch"
                return EngineProcess(module, model, dtype, "cpu", "sdpa", threads=THREADS)
        if self.peers is None:
            raise EngineFailed("no --peers interpreter was given")
        module = "benchmarks.peers.llama_cpp_engine"
        if name == CTRANSLATE:
            module = "benchmarks.peers.ctranslate2_engine"
        file = model if name == CTRANSLATE else self._gguf(dtype)
        return EngineProcess(module, file, str(THREADS), threads=THREADS, python=self.peers)

    def _gguf(self, dtype: str) -> str:
        path = self.folder / f"{dtype}.gguf"
        command = [str(self.peers), "-m", "benchmarks.peers.gguf_model"]
        made = subprocess.run(
            [*command, str(self.folder / dtype), str(path), dtype],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise EngineFailed(made.stderr.strip())
        return str(path)


def measure(engines: Engines) -> Iterator[Row]:
    """All tasks; the engines of one dtype are loaded together."""
    for dtype in dict.fromkeys(task.dtype for task in TASKS):
        tasks = [task for task in TASKS if task.dtype == dtype]
        with ExitStack() as stack:
            started, missing = start_all(engines, tasks, stack)
            for task in tasks:
                yield from compare(task, started)
            for name, reason in missing.items():
                yield {"engine": name, "dtype": dtype, "work": f"skipped: {reason}"}


def start_all(
    engines: Engines, tasks: Sequence[Task], stack: ExitStack
) -> tuple[dict[str, EngineProcess], dict[str, str]]:
    """Start and warm up what the tasks need; also the reasons of those that do not start."""
    started: dict[str, EngineProcess] = {}
    missing: dict[str, str] = {}
    for name in dict.fromkeys(name for task in tasks for name in task.engines):
        try:
            process = stack.enter_context(engines.start(name, tasks[0].dtype))
            numbers = random.Random(0)
            process.answer(Work([prompt(numbers, 600)], 16))
            process.answer(Work([prompt(numbers, 200), prompt(numbers, 300)], 4))
        except EngineFailed as failure:
            if name == OURS:
                raise
            missing[name] = str(failure).rpartition("\n")[2]
        else:
            started[name] = process
    return started, missing


def compare(task: Task, started: Mapping[str, EngineProcess]) -> Iterator[Row]:
    """Rounds of all engines in turns."""
    engines = [name for name in task.engines if name in started]
    rounds: dict[str, list[Sequence[Answer]]] = {name: [] for name in engines}
    for number in range(task.rounds):
        work = task.work(random.Random(number + 1))
        for name in engines:
            rounds[name].append(started[name].answer(work))
            took = makespan(rounds[name][-1])
            print(f"{task.name}: {name} {took:.1f} s", file=sys.stderr, flush=True)
    best = {name: min(rounds[name], key=makespan) for name in engines}
    for name in engines:
        yield {
            "work": task.name,
            "dtype": task.dtype,
            "engine": name,
            **figures(work, best[name]),
            "its time / longspan's": round(makespan(best[name]) / makespan(best[OURS]), 2),
            "answers as longspan's": agreement(rounds[name], rounds[OURS]),
        }


def figures(work: Work, answers: Sequence[Answer]) -> Row:
    """What one round took; the speeds of prefill and decoding where a single request has them."""
    took = makespan(answers)
    row: Row = {
        "s": round(took, 2),
        "first token s": round(median(answer.first_s for answer in answers), 2),
        "output tok/s": round(len(answers) * work.new_tokens / took, 1),
    }
    if len(answers) == 1:
        [answer], [asked] = answers, work.prompts
        row["prefill tok/s"] = round(len(asked) / answer.first_s)
        if work.new_tokens > 1:
            decoding = answer.last_s - answer.first_s
            row["decode tok/s"] = round((work.new_tokens - 1) / decoding, 1)
    return row


def makespan(answers: Sequence[Answer]) -> float:
    """Seconds from the arrival to the last token of all."""
    return max(answer.last_s for answer in answers)


def agreement(rounds: Sequence[Sequence[Answer]], ours: Sequence[Sequence[Answer]]) -> str:
    """Answers that are the same, token by token; rounding may turn one at a near tie."""
    pairs = [
        pair
        for theirs, own in zip(rounds, ours, strict=True)
        for pair in zip(theirs, own, strict=True)
    ]
    same = sum(list(left.tokens) == list(right.tokens) for left, right in pairs)
    return f"{same}/{len(pairs)}"


def main(peers: str | None = None) -> list[Row]:
    """Run the measurement."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for dtype in (FLOAT, BRAIN):
            write_model(HUNDRED_MILLION, folder / dtype, dtype=dtype)
        return list(measure(Engines(folder, peers)))


if __name__ == "__main__":
    for row in main(*sys.argv[1:]):
        print(row)
