"""What ``python -m longspan.worker.distil`` does: reads a text, trains maps, writes their file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np

from longspan.worker.attention.linear.maps_file import MapsFile, format_maps
from longspan.worker.attention.policy import LINEAR, ModelPolicy
from longspan.worker.attention.policy_file import SUFFIX, read_policy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.devices import set_threads
from longspan.worker.distil.distilling import Distilling, linear_layers
from longspan.worker.distil.lesson import first_page
from longspan.worker.distil.schedule import Schedule
from longspan.worker.failures import StartFailure
from longspan.worker.fidelity.reading import Tokens
from longspan.worker.fidelity.session import ModelOptions, Session, check_context, open_session
from longspan.worker.models.decoder_files import DecoderFiles, find_decoder
from longspan.worker.models.vocabulary import open_tokenizer


def run(options: argparse.Namespace, tell: Callable[[str], None]) -> None:
    """Distil, and say how it goes, line by line.

    Raises:
        StartFailure: the model, the text, the policy or a path cannot be used; one line.
    """
    set_threads(options.threads)
    if not options.out.parent.is_dir():
        raise StartFailure(f"{options.out} cannot be written: there is no such folder")
    files = find_decoder(options.model)
    length = options.tokens // PAGE_TOKENS * PAGE_TOKENS
    check_context(files, length)
    *learnt, unseen = _sequences(files, _read(options.text), length, options.sequences + 1)
    model = ModelOptions(model=options.model, dtype=options.dtype, device=options.device)
    session = open_session(model, files, length)
    policy = _policy(options.attention, session, length)
    schedule = Schedule(sequences=len(learnt), steps=options.steps, rate=options.rate)
    distilling = Distilling(session, policy, schedule)
    for number, error in enumerate(distilling.learn(learnt), 1):
        tell(f"sequence {number} of {len(learnt)}: squared error {error:.4f}")
    errors = distilling.errors(unseen)
    for layer, found in errors.items():
        tell(f"layer {layer}: {found}")
    weights = [weight for maps in distilling.maps.values() for weight in maps.parameters()]
    if not all(bool(weight.isfinite().all()) for weight in weights):
        raise StartFailure("the maps became infinite: a lower --rate may help")
    told = {
        "tokens": length * len(learnt),
        "steps": options.steps,
        "text": sha256(options.text.read_bytes()).hexdigest(),
        "errors": {str(layer): found.distilled for layer, found in errors.items()},
    }
    _write(options.out, format_maps(MapsFile(files.fingerprint, distilling.maps, told)))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartFailure(f"{path} cannot be read: {error}") from error


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StartFailure(f"{path} cannot be written: {error}") from error


def _sequences(files: DecoderFiles, text: str, length: int, most: int) -> list[Tokens]:
    """The text in sequences; the last one is not learnt from."""
    tokenizer = open_tokenizer(files.folder, files.vocabulary)
    ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.uint32)
    count = min(len(ids) // length, most)
    if count < 2:
        raise StartFailure(
            f"the text has {len(ids)} tokens: two sequences of {length} are the least"
        )
    return [ids[at * length : (at + 1) * length] for at in range(count)]


def _policy(name: str, session: Session, length: int) -> ModelPolicy:
    """The policy whose layers leave pages out within so many tokens."""
    layers, fingerprint = len(session.shapes), session.files.fingerprint
    if name.endswith(SUFFIX):
        policy = read_policy(Path(name), layers=layers, fingerprint=fingerprint)
    elif name == LINEAR.name:
        policy = LINEAR.of(layers)
    else:
        raise StartFailure(f"{name} has no linear far states; {LINEAR.name} has")
    found = linear_layers(session, policy)
    if not found:
        raise StartFailure(f"no layer of this model has a linear far state under {name}")
    least = (max(first_page(policy.layer(index)) for index in found) + 1) * PAGE_TOKENS
    if length < least:
        raise StartFailure(f"{name} leaves nothing out of {length} tokens: {least} are the least")
    return policy
