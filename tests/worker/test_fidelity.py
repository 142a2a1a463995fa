"""Fidelity of real small decoders, through the engine's own runner."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longspan.worker.attention.policy import FULL_MODEL, Kind, LayerPolicy, ModelPolicy
from longspan.worker.attention.policy_file import (
    PolicyFile,
    format_policy,
    parse_policy,
    write_policy,
)
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.failures import StartFailure
from longspan.worker.fidelity.calibrating import calibrated
from longspan.worker.fidelity.calibration import Choice
from longspan.worker.fidelity.cell import LAST_TOKENS, Fidelity, measure
from longspan.worker.fidelity.command import run
from longspan.worker.fidelity.document import Document, hidden
from longspan.worker.fidelity.haystack import filler
from longspan.worker.fidelity.needle import random_needle
from longspan.worker.fidelity.options import parse
from longspan.worker.fidelity.prompt import Prompter
from longspan.worker.fidelity.session import ModelOptions, Session, open_session
from longspan.worker.models.decoder_files import find_decoder
from tests.support.data import REPOSITORY
from tests.worker.decoders import CHATML, tiny_decoder
from tests.worker.decoding import Decoding, decoding, stories, stretched_stories
from tests.worker.harness import started
from tests.worker.planted import KV_HEAD, LAYER, planted_decoder

LENGTH, ANSWER = 2048, 6
WINDOW = LayerPolicy(kind=Kind.WINDOW, prefix_pages=1, window_pages=1)
HYBRID = LayerPolicy(kind=Kind.HYBRID, prefix_pages=1, window_pages=1, selected_pages=2)


def opened(folder: Path, tokens: int = LENGTH + 128) -> tuple[Session, Prompter]:
    """A decoder in float32, and what writes its prompts."""
    files = find_decoder(folder)
    session = open_session(ModelOptions(model=folder, dtype="float32"), files, tokens)
    return session, Prompter(folder, files.vocabulary)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random decoder with a chat template."""
    return tiny_decoder("qwen2", Path(tmp_path_factory.mktemp("tiny")), chat_template=CHATML)


@pytest.fixture(scope="module")
def tiny(folder: Path) -> tuple[Session, Prompter, Document]:
    """The same, and a document."""
    session, prompter = opened(folder)
    needle = random_needle("tiny")
    return session, prompter, hidden(prompter, filler(0), needle, length=LENGTH, depth=0.5)


def of_policy(tiny: tuple[Session, Prompter, Document], policy: ModelPolicy) -> Fidelity:
    """What a policy makes of that document."""
    session, prompter, document = tiny
    return measure(session, prompter, document, policy, answer_tokens=ANSWER)


@torch.inference_mode()
def test_under_full_attention_the_numbers_are_those_of_transformers(
    tiny: tuple[Session, Prompter, Document], folder: Path
) -> None:
    """Perplexity, rank, probability and answer of the model's own eager attention."""
    from transformers import AutoModelForCausalLM

    _, prompter, document = tiny
    found = of_policy(tiny, FULL_MODEL)
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    )
    tokens, right = document.tokens.astype(np.int64), document.prompt.answer.astype(np.int64)
    whole = torch.from_numpy(np.concatenate((tokens, right)))
    logs = model(input_ids=whole[None]).logits[0].log_softmax(-1)
    first = (document.task_start - LAST_TOKENS) // PAGE_TOKENS * PAGE_TOKENS
    places = torch.arange(first, document.task_start - 1)
    surprise = -logs[places, whole[places + 1]].mean()
    assert found.perplexity == pytest.approx(math.exp(surprise), rel=1e-3)
    number = len(tokens) + torch.tensor(document.prompt.number)
    each = logs[number - 1, whole[number]]
    assert found.log_probability == pytest.approx(float(each.mean()), rel=1e-3)
    ranks = (logs[number - 1] > each[:, None]).sum(-1) + 1
    assert found.rank == int(ranks.max())
    answer = whole[: len(tokens)]
    for _ in range(ANSWER):
        answer = torch.cat((answer, model(input_ids=answer[None]).logits[0, -1:].argmax(-1)))
    assert found.answer == prompter.decode(answer[len(tokens) :].tolist())
    assert (found.mass, found.mass_p5, found.error, found.seen_share) == (1.0, 1.0, 0.0, 1.0)


def test_a_policy_that_sees_less_captures_less(
    tiny: tuple[Session, Prompter, Document],
) -> None:
    """A window less than a window with chosen pages; only layers that have it lose anything."""
    window = of_policy(tiny, ModelPolicy("window", (WINDOW,) * 3))
    hybrid = of_policy(tiny, ModelPolicy("hybrid", (HYBRID,) * 3))
    mixed = of_policy(tiny, ModelPolicy("mixed", (FULL_MODEL.layer(0), WINDOW, HYBRID)))
    assert 0 < window.mass < hybrid.mass < 1
    assert 0 < hybrid.error < window.error
    assert 0 < window.seen_share < hybrid.seen_share < 1
    assert [layer.mass < 1 for layer in mixed.layers] == [False, True, True]
    assert [layer.error > 0 for layer in mixed.layers] == [False, True, True]
    assert window.kv_bytes < mixed.kv_bytes < hybrid.kv_bytes, "a layer gives up its part alone"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Prompter]:
    """One kv head looks at all keys alike, the others at their neighbours."""
    folder = Path(tmp_path_factory.mktemp("planted"))
    return opened(planted_decoder(folder, context_tokens=4096, chat_template=CHATML))


def calibrate(planted: tuple[Session, Prompter], **choice: Any) -> PolicyFile:
    """The policy of the planted decoder."""
    return calibrated(
        *planted,
        lambda: filler(0),
        Choice(window=WINDOW, **choice),
        name="found",
        length=LENGTH,
        depths=[0.4],
    )


def test_calibration_finds_the_planted_layer_and_head(planted: tuple[Session, Prompter]) -> None:
    """The mass that it loses is what an even look leaves outside of the window."""
    file = calibrate(planted)
    kinds = [layer.kind for layer in file.layers]
    assert kinds == [Kind.FULL if i == LAYER else Kind.WINDOW for i in range(3)]
    for index, layer in enumerate(file.calibration["layers"]):
        for head, lost in enumerate(layer["lost_mass"]):
            is_planted = (index, head) == (LAYER, KV_HEAD)
            assert layer["needs_document"][head] is is_planted
            # The answer stands at the end of 8 pages, of which the window leaves out 5 or 6.
            assert 5 / 8 <= lost <= 6 / 8 if is_planted else lost < 1e-6
    assert parse_policy(format_policy(file)) == file


def test_the_calibrated_policy_computes_what_full_attention_does(
    planted: tuple[Session, Prompter],
) -> None:
    """The windows lose nothing, where a window in the planted layer would."""
    session, prompter = planted
    document = hidden(prompter, filler(0), random_needle("x"), length=LENGTH, depth=0.4)
    policies = (calibrate(planted).policy, calibrate(planted, full_layers=0).policy)
    kept, dropped = (
        measure(session, prompter, document, policy, answer_tokens=2) for policy in policies
    )
    assert kept.mass == pytest.approx(1.0, abs=1e-6)
    assert kept.error < 1e-5
    assert dropped.mass < 0.95
    assert [layer.error > 0.01 for layer in dropped.layers] == [False, True, False]
    assert dropped.kv_bytes < kept.kv_bytes


def commanded(*arguments: str) -> list[dict[str, Any]]:
    """What the program tells."""
    told: list[dict[str, Any]] = []
    run(parse(arguments), told.append)
    return told


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example decoder, which finds numbers: its second layer looks for them everywhere."""
    path = REPOSITORY / "examples" / "finding_decoder.py"
    spec = importlib.util.spec_from_file_location("finding_decoder", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = Path(tmp_path_factory.mktemp("finder"))
    module.main(folder)
    return folder


def test_a_calibrated_policy_finds_what_a_window_loses(finder: Path, tmp_path: Path) -> None:
    """The layer that looks everywhere is kept whole; choosing its pages it finds the number too."""
    policy, few = tmp_path / "policy.json", tmp_path / "few.json"
    model = (f"--model={finder}", "--dtype=float32", "--lengths=3072")
    made = commanded(*model, "--window-pages=1", f"--calibrate={policy}")
    assert [event["kind"] for event in made if event["event"] == "layer"] == ["window", "full"]
    write_policy(few, PolicyFile("few", (WINDOW, HYBRID)))
    told = commanded(
        *model, "--depths=0.4", f"--policies=window,{policy},{few}", f"--out={tmp_path}"
    )
    cells = {event["policy"]: event for event in told if event["event"] == "cell"}
    assert {name: cell["found"] for name, cell in cells.items()} == {
        "full": True, "window": False, "calibrated": True, "few": True,
    }  # fmt: skip
    ranks = {name: cell["rank"] for name, cell in cells.items()}
    assert ranks["full"] == ranks["calibrated"] == ranks["few"] == 1 < ranks["window"]
    assert cells["full"]["log_probability"] == pytest.approx(0.0, abs=1e-3)
    assert cells["calibrated"]["mass"] == pytest.approx(1.0, abs=1e-4)
    assert cells["calibrated"]["seen_share"] < cells["full"]["seen_share"]
    assert cells["calibrated"]["perplexity_change"] == pytest.approx(0.0, abs=1e-3)
    assert cells["window"]["perplexity_change"] > 0.1


GRID = ("--dtype=float32", "--lengths=1024", "--depths=0.5", "--policies=window")


def test_the_map_is_drawn(folder: Path, tmp_path: Path) -> None:
    """Beside the numbers, and named as they are."""
    pytest.importorskip("matplotlib", reason="longspan[fidelity] is not installed")
    told = commanded(f"--model={folder}", *GRID, "--answer-tokens=2", f"--out={tmp_path}")
    image = tmp_path / "fidelity.png"
    assert [event.get("path") for event in told[-2:]] == [
        str(tmp_path / "fidelity.json"), str(image),
    ]  # fmt: skip
    assert image.read_bytes().startswith(b"\x89PNG")
    assert image.stat().st_size > 5000


def test_without_matplotlib_there_is_all_but_the_map(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the way to get it is said."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "new" / "folder"
    told = commanded(f"--model={folder}", *GRID, "--answer-tokens=2", f"--out={out}")
    assert [event["event"] for event in told] == ["model", "cell", "cell", "written", "note"]
    assert "pip install 'longspan[fidelity]'" in told[-1]["message"]
    content = json.loads((out / "fidelity.json").read_text())
    assert content["model"]["name"] == folder.name
    assert [cell["policy"] for cell in content["cells"]] == ["full", "window"]
    assert [path.name for path in out.iterdir()] == ["fidelity.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lengths=4096"], "longer than the 4096 positions"),
        (["--lengths=512"], "512 tokens are too few"),
        (["--lengths=2048", "--policies=sparse"], "no attention policy is called 'sparse'"),
        (["--lengths=2048", "--policies=none.json"], "none.json cannot be read"),
        (["--text=none.txt"], "none.txt cannot be read"),
        (["--lengths=1024", "--calibrate=policy.txt"], r"ends in \.json"),
        (["--lengths=1024", "--calibrate=nowhere/policy.json"], "folder nowhere does not exist"),
        (["--lengths=1024", "--calibrate=full.json"], "the name of a preset"),
        (["--lengths=1024", "--calibrate=policy.json"], "too short to tell"),
        (["--lengths=3328", "--calibrate=policy.json", "--depths=0.9"], "no depth lies outside"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StartFailure, match=message):
        commanded(f"--model={folder}", "--dtype=float32", *arguments)


def test_a_text_of_ones_own_is_not_repeated(folder: Path, tmp_path: Path) -> None:
    """One that is too short is refused, with its tokens."""
    text = tmp_path / "short.txt"
    text.write_text("The lease ends in May. " * 20)
    with pytest.raises(StartFailure, match="too short to tell"):
        commanded(f"--model={folder}", "--lengths=1024", f"--text={text}", f"--out={tmp_path}")


async def test_a_calibrated_file_is_served_and_holds_what_was_said(
    folder: Path, tmp_path: Path, tiny: tuple[Session, Prompter, Document]
) -> None:
    """A worker serves it by its name to those who name none; its KV memory is the measured one."""
    session, _, document = tiny
    path = tmp_path / "mine.json"
    write_policy(path, PolicyFile("mine", (WINDOW,) * 3, session.files.fingerprint))
    found = of_policy(tiny, session.policy(str(path)))
    options = ("--role", "decoder", "--dtype", "float32", "--kv-bytes", str(64 << 20))
    with started(str(folder), *options, "--attention", str(path)) as worker:
        worker.wait_ready()
        async with decoding(worker) as sequences:
            assert [one.name for one in sequences.ready.attention] == [
                "mine", "full", "window", "hybrid", "hierarchical", "hybrid-exact",
            ]  # fmt: skip
            end = await answered(sequences, document)
    assert end.attention == "mine"
    assert end.kv_bytes == found.kv_bytes
    assert end.seen_share == pytest.approx(found.seen_share, rel=1e-3)


async def answered(sequences: Decoding, document: Document) -> Any:
    """The end of one token's answer behind a document."""
    answer = await sequences.answer(
        document.tokens.tolist(), task_start=document.task_start, max_tokens=1
    )
    return answer.finished


@pytest.mark.parametrize("architecture", ["gemma3_text", "gpt_oss", "deepseek_v3"])
def test_windows_of_a_layers_own_sinks_and_latents_are_measured(
    architecture: str, tmp_path: Path
) -> None:
    """Full attention is what the model has; a layer with its own window loses nothing."""
    session, prompter = opened(tiny_decoder(architecture, tmp_path))
    needle = random_needle(architecture)
    document = hidden(prompter, filler(0), needle, length=1400, depth=0.5)
    policies = (FULL_MODEL, ModelPolicy("window", (WINDOW,) * 3))
    full, window = (
        measure(session, prompter, document, policy, answer_tokens=2) for policy in policies
    )
    assert (full.mass, full.error) == (1.0, 0.0)
    for shape, layer in zip(session.shapes, window.layers, strict=True):
        assert (layer.mass < 1.0, layer.error > 0.0) == (shape.window is None,) * 2


def test_a_published_model_is_measured(tmp_path: Path) -> None:
    """Real weights, which never saw texts of this length: less mass is less mass still."""
    stories()
    folder = stretched_stories(tmp_path, context_tokens=4096)
    session, prompter = opened(folder)
    assert not prompter.chats
    document = hidden(prompter, filler(0), random_needle("s"), length=LENGTH, depth=0.3)
    policies = (FULL_MODEL, ModelPolicy("window", (WINDOW,) * 5))
    full, window = (
        measure(session, prompter, document, policy, answer_tokens=4) for policy in policies
    )
    assert full.mass == 1.0
    assert full.error == 0.0
    assert window.mass < 1.0
    assert window.error > 0.0
    assert window.perplexity != full.perplexity
