"""Files of feature maps: what is written is read again, what is wrong refused by its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from longspan.worker.attention.linear import maps_file
from longspan.worker.attention.linear.hedgehog import Hedgehog
from longspan.worker.attention.linear.maps_file import (
    HEADER,
    BadMapsFile,
    MapsFile,
    digest,
    format_maps,
    parse_maps,
)
from longspan.worker.failures import StartFailure
from longspan.worker.generation.attention_maps import read_maps
from longspan.worker.models.probe import LayerShape

MODEL = "ab" * 32
SHAPE = LayerShape(4, 2, 3, 3, latent=False)
GOOD: dict[str, Any] = {
    "version": 1,
    "kind": "hedgehog",
    "fingerprint": MODEL,
    "distilled": {"tokens": 7},
}
Tensors = dict[str, torch.Tensor]


@torch.no_grad()
def drawn(heads: int, kv_heads: int, d: int, seed: int) -> Hedgehog:
    """Maps with random weights."""
    numbers = torch.Generator().manual_seed(seed)
    found = Hedgehog(heads, kv_heads, d)
    for weight in found.parameters():
        weight.copy_(torch.randn(weight.shape, generator=numbers))
    return found.requires_grad_(False)


def tensors(layer: int = 1) -> Tensors:
    """Of one layer."""
    maps = drawn(4, 2, 3, seed=layer)
    return {f"layers.{layer}.{name}": weight.data for name, weight in maps.named_parameters()}


def stored(found: Tensors | None = None, /, metadata: Any = None, **changes: Any) -> bytes:
    """A good file with some keys of its header replaced; None takes a key away."""
    header = {key: one for key, one in (GOOD | changes).items() if one is not None}
    known = {HEADER: json.dumps(header)} if metadata is None else metadata
    return save(tensors() if found is None else found, known)


@settings(max_examples=10, deadline=None)
@given(
    sizes=st.dictionaries(
        st.integers(0, 99_999),
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
        min_size=1,
        max_size=3,
    ),
    fingerprint=st.text(st.characters(codec="utf-8"), min_size=1),
    distilled=st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=3),
)
def test_what_is_written_is_read_again(
    sizes: dict[int, tuple[int, int, int]], fingerprint: str, distilled: dict[str, Any]
) -> None:
    """Bit by bit; and the same maps are the same bytes, so that their digest names them."""
    layers = {i: drawn(kv * group, kv, d, seed=i) for i, (kv, group, d) in sizes.items()}
    file = MapsFile(fingerprint, layers, distilled)
    data = format_maps(file)
    found = parse_maps(data)
    assert (found.fingerprint, found.distilled) == (fingerprint, distilled)
    assert sorted(found.layers) == sorted(layers)
    for index, maps in found.layers.items():
        for name, weight in maps.named_parameters():
            assert torch.equal(weight, layers[index].get_parameter(name))
    assert digest(format_maps(found)) == digest(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_maps_or_refused(data: bytes) -> None:
    """Nothing but the one error leaves the parser."""
    with suppress(BadMapsFile):
        parse_maps(data)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_other_maps_or_refused(data: st.DataObject) -> None:
    """Wherever bytes are changed or cut off."""
    whole = bytearray(stored())
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        del whole[at:]
    else:
        whole[at] ^= data.draw(st.integers(1, 255))
    with suppress(BadMapsFile):
        parse_maps(bytes(whole))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(GOOD)), json_values) | json_values)
def test_any_header_is_good_or_refused(content: Any) -> None:
    """Whatever JSON stands in it."""
    header = GOOD | content if isinstance(content, dict) else content
    with suppress(BadMapsFile):
        parse_maps(stored(metadata={HEADER: json.dumps(header)}))


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> bytes:
    """A file with one other tensor."""
    found = tensors()
    found[name] = change(found[name]).contiguous()
    return stored(found)


def without(name: str) -> bytes:
    """A file that lacks a tensor."""
    return stored({key: one for key, one in tensors().items() if key != name})


def spoilt(weight: torch.Tensor) -> torch.Tensor:
    """One of its numbers is infinite."""
    weight = weight.clone()
    weight.view(-1)[-1] = float("inf")
    return weight


WRONG = {
    "nothing": (b"", "no safetensors"),
    "no header": (b"\xff" * 8, "no safetensors"),
    "another header": (b"\x02" + b"\0" * 7 + b"[]", "the header is no JSON object"),
    "version": (stored(version=2), "version is 2; this release reads 1"),
    "a version that equals one": (stored(version=True), "version is True"),
    "an untrained kind": (stored(kind="elu"), "kind is 'elu'; only hedgehog maps are distilled"),
    "no fingerprint": (stored(fingerprint=None), "has the keys"),
    "an empty fingerprint": (stored(fingerprint=""), "fingerprint is ''"),
    "an unknown key": (stored(more=1), "has the keys"),
    "distilled": (stored(distilled=[1]), "distilled is no JSON object"),
    "no metadata": (stored(metadata={}), "its metadata is not longspan-maps alone"),
    "more metadata": (
        stored(metadata={HEADER: json.dumps(GOOD), "pickle": "x"}),
        "its metadata is not longspan-maps alone",
    ),
    "NaN in the header": (
        stored(metadata={HEADER: json.dumps(GOOD | {"distilled": {"a": float("nan")}})}),
        "NaN is no number",
    ),
    "brackets without end": (stored(metadata={HEADER: "[" * 100_000}), "longspan-maps is no JSON"),
    "no layers": (stored({}), "it has no layers"),
    "an unknown tensor": (
        stored(tensors() | {"layers.1.bias": torch.ones(1)}),
        "an unknown tensor 'layers.1.bias'",
    ),
    "a layer by another name": (
        stored(tensors() | {"layers.01.key_weight": torch.ones(1)}),
        "an unknown tensor 'layers.01.key_weight'",
    ),
    "a missing tensor": (without("layers.1.factor_bias"), "layer 1 has no factor_bias"),
    "half precision": (
        changed("layers.1.key_weight", torch.Tensor.half),
        "layers.1.key_weight is F16, not F32",
    ),
    "infinity": (changed("layers.1.key_weight", spoilt), "number that is not finite"),
    "no head": (changed("layers.1.key_weight", lambda x: x[:0]), "layers.1.key_weight is empty"),
    "heads that share none": (
        changed("layers.1.key_weight", lambda x: torch.cat((x, x[:1]))),
        "shapes that are no heads'",
    ),
    "a flat weight": (changed("layers.1.query_weight", torch.Tensor.flatten), "no heads'"),
    "another width": (
        changed("layers.1.key_weight", lambda x: x[:, :, :2]),
        "layer 1: key_weight is (2, 3, 2), not (2, 3, 3)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_by_its_place(name: str) -> None:
    data, message = WRONG[name]
    with pytest.raises(BadMapsFile) as caught:
        parse_maps(data)
    assert message in str(caught.value)


def test_maps_are_read_for_their_model(tmp_path: Path) -> None:
    """The digest is the file's; layers without maps are none of its business."""
    path = tmp_path / "maps.safetensors"
    path.write_bytes(stored())
    maps = read_maps(path, [SHAPE, SHAPE], MODEL)
    assert maps.digest == digest(path.read_bytes())
    assert maps.of({1}, torch.device("cpu")).keys() == {1}
    maps.check({1})
    with pytest.raises(StartFailure, match="have none for layer 0"):
        maps.check({0, 1})


@pytest.mark.parametrize(
    ("shapes", "fingerprint", "message"),
    [
        ([SHAPE, SHAPE], "cd" * 32, "distilled from another model"),
        ([SHAPE], MODEL, "the model has no layer 1"),
        ([SHAPE, SHAPE._replace(heads=8)], MODEL, r"\(4, 2, 3\), the model has \(8, 2, 3\)"),
        ([SHAPE, SHAPE._replace(d=4)], MODEL, r"\(4, 2, 3\), the model has \(4, 2, 4\)"),
    ],
)
def test_another_models_maps_are_refused(
    tmp_path: Path, shapes: list[LayerShape], fingerprint: str, message: str
) -> None:
    path = tmp_path / "maps.safetensors"
    path.write_bytes(stored())
    with pytest.raises(StartFailure, match=message):
        read_maps(path, shapes, fingerprint)


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StartFailure, match=r"none\.safetensors cannot be read"):
        read_maps(tmp_path / "none.safetensors", [SHAPE], MODEL)
    path = tmp_path / "large.safetensors"
    path.write_bytes(stored())
    monkeypatch.setattr(maps_file, "MOST_BYTES", 100)
    with pytest.raises(StartFailure, match=r"large\.safetensors: it has more than 100 bytes"):
        read_maps(path, [SHAPE], MODEL)
