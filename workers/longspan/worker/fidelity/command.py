"""What ``python -m longspan.worker.fidelity`` does, told as events."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from longspan.worker.attention.policy import PRESETS, Kind, LayerPolicy
from longspan.worker.attention.policy_file import (
    SUFFIX,
    BadPolicyFile,
    PolicyFile,
    check_name,
    write_policy,
)
from longspan.worker.devices import set_threads
from longspan.worker.failures import StartFailure
from longspan.worker.fidelity import report
from longspan.worker.fidelity.calibrating import calibrated, check_length, far_depths, shortness
from longspan.worker.fidelity.calibration import Choice
from longspan.worker.fidelity.grid import Grid, measured
from longspan.worker.fidelity.haystack import filler, sentences
from longspan.worker.fidelity.prompt import Prompter
from longspan.worker.fidelity.session import ModelOptions, Session, check_context, open_session
from longspan.worker.models.decoder_files import DecoderFiles, find_decoder

LENGTHS = (8192, 32_768)
"""Where nothing else is asked for and the model's positions go so far."""

DEPTHS = (0.1, 0.5, 0.9)
FAR_DEPTHS = (0.25, 0.5)
LEAST_TOKENS = 1024
"""Of a prompt: its document's last pages are foretold from those before them."""

ROOM = 128
"""Tokens behind a prompt, at least: the right answer."""

Event = dict[str, Any]
Emit = Callable[[Event], None]


def run(options: argparse.Namespace, emit: Emit) -> None:
    """Measure a grid, or calibrate.

    Raises:
        StartFailure: the model, the text, a policy or a path cannot be used; one line.
    """
    set_threads(options.threads)
    text = _read(options.text) if options.text else None

    def pieces() -> Iterable[str]:
        return filler(0) if text is None else sentences(text)

    files = find_decoder(options.model)
    prompter = Prompter(options.model, files.vocabulary)
    (_calibrate if options.calibrate else _measure)(options, files, prompter, pieces, emit)


def _measure(
    options: argparse.Namespace,
    files: DecoderFiles,
    prompter: Prompter,
    pieces: Callable[[], Iterable[str]],
    emit: Emit,
) -> None:
    report.make_folder(options.out)
    room = max(ROOM, options.answer_tokens)
    lengths = _lengths(options, files, room)
    session = _open(options, files, max(lengths) + room)
    names = dict.fromkeys(("full", *options.policies))
    grid = Grid(
        lengths=lengths,
        depths=options.depths or DEPTHS,
        policies=[session.policy(name) for name in names],
        answer_tokens=options.answer_tokens,
    )
    model = _model(session, prompter, options.text)
    emit({"event": "model", **model, "cells": grid.cells})
    cells = []
    for cell in measured(session, prompter, pieces, grid):
        cells.append(cell.values())
        emit({"event": "cell", "number": len(cells), "of": grid.cells, **cells[-1]})
    for path in _written(options.out, model, cells, emit):
        emit({"event": "written", "path": str(path)})


def _written(folder: Path, model: Event, cells: list[Event], emit: Emit) -> Iterator[Path]:
    yield report.write_json(folder, model, cells)
    if report.can_draw():
        yield report.write_image(folder, cells)
    else:
        emit({"event": "note", "message": report.NO_IMAGE})


def _calibrate(
    options: argparse.Namespace,
    files: DecoderFiles,
    prompter: Prompter,
    pieces: Callable[[], Iterable[str]],
    emit: Emit,
) -> None:
    path: Path = options.calibrate
    name = _policy_name(path)
    choice = _choice(options)
    length = max(_lengths(options, files, ROOM))
    check_length(choice.window, length)
    depths = far_depths(choice.window, length, options.depths or FAR_DEPTHS)
    session = _open(options, files, length + ROOM)
    model = _model(session, prompter, options.text)
    emit({"event": "model", **model, "cells": 0})
    file = calibrated(session, prompter, pieces, choice, name=name, length=length, depths=depths)
    file = replace(file, calibration={"text": model["text"], **file.calibration})
    write_policy(path, file)
    numbers = file.calibration["layers"]
    for index, (layer, found) in enumerate(zip(file.layers, numbers, strict=True)):
        emit({"event": "layer", "layer": index, "kind": str(layer.kind), **found})
    for note in _notes(file, choice, length):
        emit({"event": "note", "message": note})
    emit({"event": "written", "path": str(path)})


def _notes(file: PolicyFile, choice: Choice, length: int) -> Iterator[str]:
    short = shortness(choice.window, length)
    if short:
        yield short
    windows = [index for index, layer in enumerate(file.layers) if layer == choice.window]
    if not windows:
        yield "every layer needs the whole document: the policy saves nothing"
    if len(windows) == len(file.layers):
        yield "no layer keeps the whole document: what lies between is never seen again"
    numbers = file.calibration["layers"]
    forced = [str(index) for index in windows if any(numbers[index]["needs_document"])]
    if forced:
        yield f"layers {', '.join(forced)} need the document too, and get a window as was asked"


def _choice(options: argparse.Namespace) -> Choice:
    return Choice(
        window=LayerPolicy(
            kind=Kind.WINDOW,
            prefix_pages=options.prefix_pages,
            window_pages=options.window_pages,
        ),
        kept=PRESETS[options.kept].layer,
        keep_mass=options.keep_mass,
        full_layers=options.full_layers,
    )


def _policy_name(path: Path) -> str:
    if path.suffix != SUFFIX:
        raise StartFailure(f"the name of a policy's file ends in {SUFFIX}, not as {path.name} does")
    if not path.parent.is_dir():
        raise StartFailure(f"folder {path.parent} does not exist")
    try:
        return check_name("calibrated" if path.stem == "policy" else path.stem)
    except BadPolicyFile as error:
        raise StartFailure(f"{path.name}: {error}") from error


def _lengths(options: argparse.Namespace, files: DecoderFiles, room: int) -> tuple[int, ...]:
    """As asked; else those of the usual ones that the model's positions allow."""
    fitting = tuple(length for length in LENGTHS if length + room <= files.context_tokens)
    lengths: tuple[int, ...] = options.lengths or fitting or (files.context_tokens - room,)
    if min(lengths) < LEAST_TOKENS:
        raise StartFailure(f"{min(lengths)} tokens are too few: at least {LEAST_TOKENS}")
    check_context(files, max(lengths) + room)
    return lengths


def _open(options: argparse.Namespace, files: DecoderFiles, tokens: int) -> Session:
    model = ModelOptions(
        model=options.model,
        dtype=options.dtype,
        device=options.device,
        threads=options.threads,
        attention_maps=options.attention_maps,
    )
    return open_session(model, files, tokens)


def _model(session: Session, prompter: Prompter, text: Path | None) -> Event:
    return {
        "name": session.files.name,
        "fingerprint": session.files.fingerprint,
        "dtype": str(session.dtype).removeprefix("torch."),
        "device": str(session.device),
        "layers": len(session.shapes),
        "chat_template": prompter.chats,
        "text": None if text is None else text.name,
    }


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartFailure(f"{path} cannot be read: {error}") from error
