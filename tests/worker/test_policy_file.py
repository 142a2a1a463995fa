"""``policy.json``: what is written is read again, and what is wrong is refused by its place."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.worker.attention.policy import FULL, PRESETS, Kind, LayerPolicy
from longspan.worker.attention.policy_file import (
    BadPolicyFile,
    PolicyFile,
    format_policy,
    parse_policy,
    read_policy,
    write_policy,
)
from longspan.worker.attention.retention import Retention
from longspan.worker.failures import StartFailure
from longspan.worker.generation.policies import UnknownPolicy, policies_for
from longspan.worker.models.probe import LayerShape

WINDOW = LayerPolicy(kind=Kind.WINDOW, prefix_pages=1, window_pages=4)
HYBRID = PRESETS["hybrid"].layer
SHAPE = LayerShape(4, 2, 16, 16, latent=False)
MODEL = "ab" * 32

pages = st.integers(0, 1000)
layers = st.one_of(
    st.just(FULL),
    st.builds(
        LayerPolicy, kind=st.just(Kind.WINDOW), prefix_pages=st.integers(1, 99), window_pages=pages
    ),
    st.builds(
        LayerPolicy,
        kind=st.just(Kind.HYBRID),
        prefix_pages=st.integers(1, 99),
        window_pages=pages,
        selected_pages=pages,
        dense_pages=pages,
    ),
)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.booleans()
json_values = st.recursive(
    st.none() | numbers | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
)
files = st.builds(
    PolicyFile,
    name=st.from_regex(r"[a-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True).filter(
        lambda name: name not in PRESETS
    ),
    layers=st.lists(layers, min_size=1, max_size=40).map(tuple),
    fingerprint=st.none() | st.text(min_size=1),
    calibration=st.dictionaries(st.text(), json_values, max_size=4),
)


@given(files)
def test_what_is_written_is_read_again(file: PolicyFile) -> None:
    assert parse_policy(format_policy(file)) == file


@given(st.text() | json_values.map(json.dumps))
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    """Nothing but the one error leaves the parser."""
    with suppress(BadPolicyFile):
        assert parse_policy(text).layers


def stored(**changes: Any) -> str:
    """A good file with some keys replaced; None takes a key away."""
    content = {
        "version": 1,
        "name": "mine",
        "fingerprint": MODEL,
        "layers": [{"kind": "full"}, {"kind": "window", "prefix_pages": 1, "window_pages": 4}],
    } | changes
    return json.dumps({key: value for key, value in content.items() if value is not None})


def test_defaults_are_left_out() -> None:
    """The file shows what was chosen, and no more."""
    content = json.loads(format_policy(PolicyFile("mine", (FULL, WINDOW), MODEL)))
    assert content == json.loads(stored())


WRONG = {
    "version": (stored(version=2), "version is 2; this release reads 1"),
    "no version": (stored(version=None), "version is None"),
    "a version that equals one": (stored(version=True), "version is True"),
    "no name": (stored(name=None), "name is None"),
    "a preset's name": (stored(name="hybrid"), "the name of a preset"),
    "a name with a space": (stored(name="my policy"), "name is 'my policy'"),
    "no layers": (stored(layers=None), "layers is no list"),
    "layers without any": (stored(layers=[]), "layers is no list"),
    "a layer that is none": (stored(layers=["full"]), "layer 0 is no JSON object"),
    "no kind": (stored(layers=[{}]), "layer 0 has no kind"),
    "unknown kind": (stored(layers=[{"kind": "some"}]), "layer 0: kind is 'some'; known: full"),
    "unknown field": (
        stored(layers=[{"kind": "full", "pages": 1}]),
        "layer 0 has an unknown key 'pages'",
    ),
    "negative pages": (
        stored(layers=[{"kind": "window", "prefix_pages": -1}]),
        "layer 0: a policy counts in pages, not in -1",
    ),
    "half a page": (
        stored(layers=[{"kind": "window", "prefix_pages": 1.5}]),
        "layer 0: prefix_pages is 1.5, no int",
    ),
    "a truth as a number": (
        stored(layers=[{"kind": "window", "prefix_pages": True}]),
        "layer 0: prefix_pages is True, no int",
    ),
    "a window without sinks": (stored(layers=[{"kind": "window"}]), "attention sinks"),
    "a full layer with a window": (
        stored(layers=[{"kind": "full"}, {"kind": "full", "window_pages": 1}]),
        "layer 1: a full layer sees everything",
    ),
    "unknown key": (stored(more=1), "the file has an unknown key 'more'"),
    "fingerprint": (stored(fingerprint=7), "fingerprint is 7"),
    "calibration": (stored(calibration=[1]), "calibration is no JSON object"),
    "no JSON": ("{", "no JSON: "),
    "no object": ("[]", "no JSON object"),
    "a key twice": ('{"version": 1, "version": 1}', "'version' stands twice"),
    "NaN": (stored()[:-1] + ', "calibration": {"a": NaN}}', "NaN is no number"),
    "a number without end": ('{"version": ' + "1" * 5000 + "}", "no JSON: "),
    "brackets without end": ("[" * 100_000, "no JSON: "),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_by_its_place(name: str) -> None:
    text, message = WRONG[name]
    with pytest.raises(BadPolicyFile) as caught:
        parse_policy(text)
    assert message in str(caught.value)


def test_a_file_is_served_under_its_name_beside_the_presets(tmp_path: Path) -> None:
    """It is what requests get that name none."""
    path = tmp_path / "policy.json"
    write_policy(path, PolicyFile("mine", (FULL, WINDOW), MODEL))
    policies = policies_for(str(path), [SHAPE, SHAPE], MODEL, 4)
    assert policies.names == ("mine", "full", "window", "hybrid", "hierarchical", "hybrid-exact")
    assert policies.get("").policy.layers == (FULL, WINDOW)
    assert policies.get("full").policy.full
    with pytest.raises(UnknownPolicy):
        policies.get("policy")


def test_a_policy_that_sees_everything_shares_the_pages_of_full(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    write_policy(path, PolicyFile("all", (FULL, FULL)))
    policy = policies_for(str(path), [SHAPE, SHAPE], MODEL, 4).get("all").policy
    assert policy.full
    assert policy.identity() == "full"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (PolicyFile("mine", (FULL,)), "it is for 1 layers, the model has 2"),
        (PolicyFile("mine", (FULL, WINDOW), "cd" * 32), "another model, whose fingerprint"),
    ],
)
def test_another_models_policy_is_refused(tmp_path: Path, file: PolicyFile, message: str) -> None:
    path = tmp_path / "policy.json"
    write_policy(path, file)
    with pytest.raises(StartFailure, match=message):
        read_policy(path, layers=2, fingerprint=MODEL)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartFailure, match=r"none\.json cannot be read"):
        policies_for(str(tmp_path / "none.json"), [SHAPE], MODEL, 4)
    (tmp_path / "bytes.json").write_bytes(b"\xff")
    with pytest.raises(StartFailure, match=r"bytes\.json cannot be read"):
        policies_for(str(tmp_path / "bytes.json"), [SHAPE], MODEL, 4)
    known = (
        "full, window, hybrid, hierarchical, hybrid-exact, hybrid-4bit, hybrid-host, summary, lean"
    )
    with pytest.raises(StartFailure, match=f"only {known}; a file's name"):
        policies_for("sparse", [SHAPE], MODEL, 4)


def test_a_layers_own_window_stands_above_the_file(tmp_path: Path) -> None:
    """It was trained with it: it keeps 16 pages, and the other layer what the file says."""
    path = tmp_path / "policy.json"
    write_policy(path, PolicyFile("mine", (WINDOW, WINDOW)))
    wide = SHAPE._replace(window=4096)
    served = policies_for(str(path), [wide, SHAPE], MODEL, 4).get("mine")
    own, other = served.retentions
    assert own == Retention(0, 16)
    assert other == Retention(WINDOW.prefix_pages, WINDOW.window_pages)


@pytest.mark.parametrize("layer", [WINDOW, HYBRID])
def test_every_kind_can_be_written_by_hand(layer: LayerPolicy) -> None:
    """The preset's layers in a file are the preset's layers."""
    text = format_policy(PolicyFile("mine", (layer,)))
    assert parse_policy(text).policy.layers == (layer,)
