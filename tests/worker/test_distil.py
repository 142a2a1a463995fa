"""Distillation: what maps learn from is the policy's definition, and what comes of it is served."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from longspan.worker.attention.linear.maps_file import parse_maps
from longspan.worker.attention.naive_policy import attend_naively
from longspan.worker.attention.policy import FULL, Far, Kind, LayerPolicy, Selector
from longspan.worker.attention.policy_file import PolicyFile, write_policy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.zones import NO_ZONES
from longspan.worker.distil.command import run
from longspan.worker.distil.distilling import Distilling
from longspan.worker.distil.lesson import QUERIES, first_page, lesson
from longspan.worker.distil.looks import LayerLook
from longspan.worker.distil.options import parse
from longspan.worker.failures import StartFailure
from longspan.worker.fidelity.command import run as measure
from longspan.worker.fidelity.options import parse as fidelity
from longspan.worker.generation.attention_maps import read_maps
from longspan.worker.models.decoder_files import find_decoder
from longspan.worker.models.loading import load_decoder
from longspan.worker.models.probe import probe
from tests.worker.decoders import CHATML, TEXT, tiny_decoder
from tests.worker.test_policies import CPU, SCALE, Document

LINEAR = LayerPolicy(
    kind=Kind.HIERARCHICAL, prefix_pages=1, window_pages=1, selected_pages=1, far=Far.LINEAR
)
ERRORS = re.compile(r"layer (\d+): error ([\d.]+) without .*, ([\d.]+) untrained, ([\d.]+) dist")


def test_a_lesson_is_what_the_policy_is_defined_to_see() -> None:
    """Its queries choose by the scores themselves, all others of their page left aside."""
    document = Document(6 * PAGE_TOKENS)
    look = LayerLook(document.query, document.keys, document.values, SCALE)
    one, step = lesson(look, LINEAR), PAGE_TOKENS // QUERIES
    places = torch.arange(first_page(LINEAR) * PAGE_TOKENS, 6 * PAGE_TOKENS)
    asked = places[places % step == step - 1]
    assert len(asked) == one.query.shape[0] * QUERIES
    definitions = {
        "linear": (replace(LINEAR, selector=Selector.EXACT), one.attended(document.maps)),
        "centroids": (
            replace(LINEAR, selector=Selector.EXACT, far=Far.CENTROID),
            one.with_centroids(),
        ),
        "near": (replace(LINEAR, selector=Selector.EXACT, far=Far.NONE), one.near),
        "full": (FULL, one.near._replace(out=one.target)),
    }
    for name, (policy, found) in definitions.items():
        expected = attend_naively(
            document.query,
            document.keys,
            document.values,
            policy,
            NO_ZONES,
            scale=SCALE,
            stride=step,
            maps=document.maps,
        )
        out = found.out.flatten(0, 1)
        torch.testing.assert_close(out, expected.out[asked], atol=1e-4, rtol=1e-4, msg=name)
    assert float(one.error(one.near.out)) > 0 == float(one.error(one.target))
    whole = torch.logaddexp(one.near.lse, one.far_lse).flatten(0, 1)
    document_full = document.reference(FULL, NO_ZONES).lse[asked]
    torch.testing.assert_close(whole, document_full, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random decoder, a text, and a policy whose far states begin early, in one folder."""
    folder = tmp_path_factory.mktemp("distil")
    tiny_decoder("llama", folder / "model", chat_template=CHATML)
    blind = replace(LINEAR, far=Far.NONE)
    write_policy(folder / "linear.json", PolicyFile("mine", (FULL, LINEAR, LINEAR)))
    write_policy(folder / "blind.json", PolicyFile("blind", (FULL, blind, blind)))
    (folder / "text.txt").write_text(" ".join(TEXT) * 200)
    return folder


def arguments(folder: Path, **changes: str) -> list[str]:
    """The command line, with some options replaced."""
    options = {
        "model": str(folder / "model"),
        "text": str(folder / "text.txt"),
        "out": str(folder / "maps.safetensors"),
        "attention": str(folder / "linear.json"),
        "tokens": "2048",
        "sequences": "2",
        "steps": "8",
        "dtype": "float32",
    } | changes
    return [part for name, value in options.items() for part in (f"--{name}", value)]


@pytest.fixture(scope="module")
def told(model: Path) -> list[str]:
    """What was said while maps were distilled."""
    lines: list[str] = []
    run(parse(arguments(model)), lines.append)
    return lines


def test_maps_of_a_decoder_are_written_and_fit_it(model: Path, told: list[str]) -> None:
    """They are closer to full attention than no far state, on a text that was not learnt from."""
    data = (model / "maps.safetensors").read_bytes()
    assert parse_maps(data).layers.keys() == {1, 2}
    assert parse_maps(data).distilled["tokens"] == 2 * 2048
    files = find_decoder(model / "model")
    shapes = probe(load_decoder(files, device="cpu", dtype="float32"), CPU)
    assert read_maps(model / "maps.safetensors", shapes, files.fingerprint).layers.keys() == {1, 2}
    found = [ERRORS.match(line) for line in told]
    errors = [[float(number) for number in match.groups()] for match in found if match]
    assert [error[0] for error in errors] == [1, 2]
    for _, none, untrained, distilled in errors:
        assert distilled < untrained
        assert distilled < none


def test_fidelity_measures_what_they_are_worth(model: Path, told: list[str]) -> None:
    """Through the engine's own pages: the layers' outputs are closer than without far states."""
    options = {
        "model": model / "model",
        "dtype": "float32",
        "lengths": 2560,
        "depths": 0.5,
        "answer-tokens": 1,
        "out": model / "fidelity",
        "policies": f"{model / 'linear.json'},{model / 'blind.json'}",
        "attention-maps": model / "maps.safetensors",
    }
    events: list[dict[str, Any]] = []
    measure(fidelity([f"--{name}={value}" for name, value in options.items()]), events.append)
    cells = {event["policy"]: event for event in events if event["event"] == "cell"}
    assert 0 < cells["mine"]["error"] < cells["blind"]["error"]
    assert cells["mine"]["kv_bytes"] > cells["blind"]["kv_bytes"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": "768"}, "leaves nothing out of 768 tokens: 1280 are the least"),
        ({"attention": "hybrid"}, "hybrid has no linear far states; hierarchical-linear has"),
        ({"tokens": "8192"}, "longer than the 4096 positions"),
        ({"text": "none.txt"}, r"none\.txt cannot be read"),
        ({"out": "nowhere/maps.safetensors"}, "there is no such folder"),
        ({"text": "linear.json"}, "two sequences of 2048 are the least"),
    ],
)
def test_what_cannot_be_distilled_is_refused(
    model: Path, changes: dict[str, str], message: str
) -> None:
    if "text" in changes:
        changes = {"text": str(model / changes["text"])}
    with pytest.raises(StartFailure, match=message):
        run(parse(arguments(model, **changes)), print)


def test_maps_that_became_infinite_are_not_written(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be refused when they are served, long after they were learnt."""

    @torch.no_grad()
    def spoil(distilling: Distilling, learnt: object) -> Iterator[float]:
        next(iter(next(iter(distilling.maps.values())).parameters()))[0].fill_(float("inf"))
        yield 0.0

    monkeypatch.setattr(Distilling, "learn", spoil)
    out = model / "infinite.safetensors"
    with pytest.raises(StartFailure, match="became infinite"):
        run(parse(arguments(model, out=str(out))), print)
    assert not out.exists()
