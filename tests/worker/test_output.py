"""The answer of one sequence: text, stops, ends and replays."""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from longspan.worker.generation.outcomes import FinishReason
from longspan.worker.sampling.detokeniser import Detokeniser
from longspan.worker.sampling.grammar import Grammars
from longspan.worker.sampling.output import Output
from longspan.worker.sampling.params import GrammarKind, GrammarSpec, SamplingParams
from longspan.worker.sampling.pieces import Pieces, byte_level_alphabet

STOP = 256
SCHEMA = json.dumps({"type": "array", "items": {"enum": ["é", "b"]}, "maxItems": 4})
GRAMMARS = st.sampled_from(
    [
        None,
        GrammarSpec(GrammarKind.JSON_SCHEMA, SCHEMA),
        GrammarSpec(GrammarKind.REGEX, "[aé\n]*b"),
        GrammarSpec(GrammarKind.REGEX, "[aé\n]*b", "</think>"),
    ]
)
PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 24),
    stop_texts=st.lists(st.text("aé\n\ufffd", min_size=1, max_size=4), max_size=2).map(tuple),
    stop_tokens=st.sampled_from([(), (257,), (0, 65)]),
    answer_begins=st.sampled_from(["", "</think>", "é"]),
    grammar=GRAMMARS,
)


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """A token for every byte, a stop token, and added tokens that are text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({c: token for token, c in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|end|>"])
    made.add_tokens([AddedToken(text) for text in ("</think>", "aé", "é\n")])
    return made


@lru_cache(maxsize=1)
def grammars() -> Grammars:
    """Of the tokenizer above."""
    return Grammars(tokenizer(), 260, [STOP])


def new_output(params: SamplingParams) -> Output:
    """An output at its beginning."""
    constraint = grammars().compile(params.grammar) if params.grammar else None
    return Output(params, Detokeniser(Pieces(tokenizer())), [STOP], constraint)


def ids(text: str) -> list[int]:
    """The tokens of a text."""
    found: list[int] = tokenizer().encode(text).ids
    return found


def allowed(output: Output) -> list[int]:
    """The tokens that may come next, few of them for free text."""
    mask = output.row().mask
    usual = [*ids("aé\n</think>b"), *range(254, 260)]
    if mask is None:
        return usual
    bits = np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")
    return [token for token in usual if bits[token]] or np.flatnonzero(bits).tolist()


def generated(params: SamplingParams, data: st.DataObject) -> tuple[list[int], list[str], Output]:
    """An answer that a model might give: its tokens, the text of each, and the output."""
    output, tokens, texts = new_output(params), [], []
    while output.finish is None:
        tokens.append(data.draw(st.sampled_from(allowed(output))))
        texts.append(output.push(tokens[-1]).text)
    return tokens, texts, output


@settings(deadline=None)
@given(PARAMS, st.data())
def test_a_replay_leaves_everything_as_it_was(params: SamplingParams, data: st.DataObject) -> None:
    """Wherever an answer is cut, a replay of the first part goes on with the same texts."""
    tokens, texts, output = generated(params, data)
    for cut in range(len(tokens) + 1):
        replayed = new_output(params)
        finish = replayed.replay(tokens[:cut])
        assert replayed.index == cut
        assert finish == (output.finish if cut == len(tokens) else None)
        assert [replayed.push(token).text for token in tokens[cut:]] == texts[cut:]
        assert replayed.finish == output.finish


@settings(deadline=None)
@given(PARAMS, st.data())
def test_the_text_is_that_of_the_tokens_up_to_the_first_stop(
    params: SamplingParams, data: st.DataObject
) -> None:
    """All texts together are the decoded tokens, cut before a stop string in the answer."""
    tokens, texts, output = generated(params, data)
    answering = params.answer_begins in "".join(texts[:-1])
    stop_tokens = {STOP, *(params.stop_tokens if answering else ())}
    spoken = tokens[:-1] if tokens[-1] in stop_tokens else tokens
    whole = tokenizer().decode(spoken, skip_special_tokens=True)
    shown = "".join(texts)
    assert whole.startswith(shown)
    answer = shown.partition(params.answer_begins)[2].lstrip() if params.answer_begins else shown
    assert not any(text in answer for text in params.stop_texts)
    if shown != whole:
        assert any(whole[len(shown) :].startswith(text) for text in params.stop_texts)
        assert output.finish is FinishReason.STOP
    if output.finish is FinishReason.LENGTH:
        assert len(tokens) == params.max_tokens
    assert output.index == len(tokens) <= params.max_tokens


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["x", "é", "\n", " ", "</think>", "</think"]), max_size=20),
    st.lists(st.text("xé\n ", min_size=1, max_size=3), min_size=1, max_size=2).map(tuple),
)
def test_stops_behind_the_reasoning_do_not_depend_on_the_tokens(
    words: list[str], stops: tuple[str, ...]
) -> None:
    """Byte by byte, or with the longest tokens: the same text is shown, and ends alike."""
    text = "".join(words)
    params = SamplingParams(max_tokens=999, stop_texts=stops, answer_begins="</think>")
    ends = []
    for tokens in (ids(text), bytewise(text)):
        output = new_output(params)
        shown = ""
        for token in tokens:
            shown += output.push(token).text
            if output.finish is not None:
                break
        else:
            shown += output.push(STOP).text
        ends.append(shown)
    assert ends[0] == ends[1]
    _, mark, rest = text.partition("</think>")
    answer = rest.lstrip()
    places = [answer.find(stop) + len(stop) for stop in stops if stop in answer]
    if not mark or not places:
        assert ends[0] == text
    else:
        whole = text[: len(text) - len(answer) + min(places)]
        assert whole.startswith(ends[0])
        assert whole[len(ends[0]) :] in stops


def bytewise(text: str) -> list[int]:
    """The tokens of a text's single bytes."""
    alphabet = {byte: character for character, byte in byte_level_alphabet().items()}
    found = [tokenizer().token_to_id(alphabet[byte]) for byte in text.encode()]
    return [token for token in found if token is not None]


def test_a_stop_token_of_the_request_counts_in_the_answer() -> None:
    """The reasoning goes on behind it, and so do blanks before the answer; the model's ends all."""
    line = ids("\n")[0]
    params = SamplingParams(max_tokens=99, stop_tokens=(line, 257), answer_begins="</think>")
    for text, shown in [
        ("a\nb\n</think>\n\nab\na", "a\nb\n</think>\n\nab"),
        ("a\nb", "a\nb"),
    ]:
        output, parts = new_output(params), []
        for token in [*ids(text), STOP]:
            parts.append(output.push(token).text)
            if output.finish is not None:
                break
        assert ("".join(parts), output.finish) == (shown, FinishReason.STOP)


def test_a_stop_token_is_not_shown_but_what_was_held_back_is() -> None:
    """The model's stop token and a request's own end the answer alike."""
    for stop in (STOP, ids("b")[0]):
        params = SamplingParams(max_tokens=9, stop_texts=("a###",), stop_tokens=tuple(ids("b")))
        output = new_output(params)
        texts = [output.push(token).text for token in ids("xa##")]
        assert texts == ["x", "", "", ""]
        end = output.push(stop)
        assert (end.text, end.finish) == ("a##", FinishReason.STOP)


def test_the_last_token_shows_a_broken_character() -> None:
    """Nothing is lost when the tokens run out within a character."""
    output = new_output(SamplingParams(max_tokens=2))
    first, second = (output.push(token) for token in ids("🙂")[:2])
    assert (first.text, first.finish) == ("", None)
    assert (second.text, second.finish) == ("\ufffd", FinishReason.LENGTH)


def test_a_complete_grammar_ends_the_answer() -> None:
    """No token is spent on a stop that is the only one allowed."""
    spec = GrammarSpec(GrammarKind.REGEX, "yes|no")
    output = new_output(SamplingParams(max_tokens=9, grammar=spec))
    steps = [output.push(token) for token in ids("yes")]
    assert [step.finish for step in steps] == [None, None, FinishReason.STOP]
    assert "".join(step.text for step in steps) == "yes"


def test_a_row_says_how_the_next_token_is_chosen() -> None:
    """The index counts replayed tokens; the mask is there when there is a grammar."""
    params = SamplingParams(max_tokens=9, temperature=1.0, seed=5)
    output = new_output(params)
    output.replay(ids("abc"))
    row = output.row()
    assert (row.params, row.index, row.mask) == (params, 3, None)
    spec = GrammarSpec(GrammarKind.REGEX, "yes|no")
    held = new_output(SamplingParams(max_tokens=9, grammar=spec))
    assert allowed(held) == [ids("n")[0], ids("y")[0]]


def test_a_replay_behind_the_end_is_refused() -> None:
    """Delivered tokens that go on behind a stop are nobody's answer."""
    output = new_output(SamplingParams(max_tokens=2))
    with pytest.raises(ValueError, match="behind the end"):
        output.replay([65, 66, 67])
