"""Starts of a decoder process that must not succeed, and an encoder asked to decode."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.failures import EXIT_BAD_MODEL, StartFailure, UnforeseenFailure, loading
from tests.worker.decoders import tiny_decoder
from tests.worker.decoding import packed
from tests.worker.harness import opened, started
from tests.worker.models import save_tiny_model


def pickled(folder: Path) -> None:
    """Leave only weights that Python would have to be trusted with."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def coded(folder: Path) -> None:
    """A model that brings its own code."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit(0)\n")


def configured(**changes: object) -> Callable[[Path], object]:
    """Change keys of config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


SPOILS: dict[str, Callable[[Path], object]] = {
    "no safetensors": pickled,
    "custom code": coded,
    "little memory": lambda folder: None,
    "unknown activation": configured(hidden_act="nonsense"),
    "unknown rotary kind": configured(
        rope_parameters={"rope_type": "nonsense", "rope_theta": 10_000.0}
    ),
    "no kv heads": configured(num_key_value_heads=0),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit status and standard error of each start; all are tried side by side."""
    original = tiny_decoder("llama", tmp_path_factory.mktemp("model") / "model")
    ends = {}
    with ExitStack() as stack:
        processes = {}
        for name, spoil in SPOILS.items():
            folder = original.with_name(name.replace(" ", "-"))
            shutil.copytree(original, folder)
            spoil(folder)
            arguments = ["--role", "decoder", "--kv-bytes", "50000"]
            processes[name] = stack.enter_context(started(str(folder), *arguments))
        for name, worker in processes.items():
            ends[name] = (worker.process.wait(60), worker.errors())
    return ends


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no safetensors", "only pickled weights (pytorch_model.bin)"),
        ("custom code", "needs code that must be trusted"),
        ("little memory", "50000 bytes hold 0 KV pages"),
    ],
)
def test_a_start_that_cannot_succeed_says_why_in_one_line(
    ends: dict[str, tuple[int, str]], name: str, message: str
) -> None:
    """The exit status tells the parent not to try again."""
    status, errors = ends[name]
    assert status == EXIT_BAD_MODEL
    assert errors.startswith("longspan-worker: ")
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("unknown activation", "KeyError: 'nonsense'"),
        ("unknown rotary kind", "KeyError: 'nonsense'"),
        ("no kv heads", "ZeroDivisionError: integer division or modulo by zero"),
    ],
)
def test_a_model_that_breaks_its_own_code_is_not_tried_again(
    ends: dict[str, tuple[int, str]], name: str, reason: str
) -> None:
    """What nobody foresaw is told like the rest; the lines before the last say where it was."""
    status, errors = ends[name]
    assert status == EXIT_BAD_MODEL
    *before, last = errors.splitlines()
    assert last == f"longspan-worker: the model cannot be loaded: {reason}"
    assert any("transformers" in line for line in before)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "out of memory"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nSee"),
            "CUDA out of memory. Tried 2 GiB.",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes."),
            "out of memory: DefaultCPUAllocator: can't allocate memory: you tried 9 bytes.",
        ),
        (ImportError("\nno libcudart.so.12"), "ImportError: no libcudart.so.12"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_whatever_breaks_the_loading_is_told_in_one_line(error: Exception, line: str) -> None:
    """Memory that runs out anywhere says so; all else names its kind."""
    with pytest.raises(StartFailure) as failure, loading():
        raise error
    assert str(failure.value) == f"the model cannot be loaded: {line}"
    assert isinstance(failure.value, UnforeseenFailure) == ("memory" not in line)


def test_a_failure_that_was_foreseen_keeps_its_words() -> None:
    """It already is one line."""
    with pytest.raises(StartFailure, match=r"^as it is$"), loading():
        raise StartFailure("as it is")


async def test_an_encoder_opens_no_sequence(tmp_path: Path) -> None:
    """One Failed for the Open, none for what follows it; the encoder lives on."""
    with started(str(save_tiny_model(tmp_path))) as worker:
        worker.wait_ready()
        async with opened(worker) as (stream, _):
            sampling = pb.Sampling(max_tokens=3, top_p=1)
            command = pb.Open(job_id=1, prompt=packed([5, 6]), sampling=sampling)
            append = pb.Append(job_id=1, tokens=packed([7]), seal=True)
            await stream.call.write(pb.ExecuteRequest(open=command))
            await stream.call.write(pb.ExecuteRequest(append=append))
            failed = (await stream.next_end()).failed
            assert (failed.job_id, failed.reason) == (1, "NO_DECODER")
            assert failed.message
            await stream.encode(2, [packed([5])])
            assert (await stream.next_end()).encoded.job_id == 2
