"""What a worker is told of a request's options and of the prompt that they go with."""

from __future__ import annotations

from dataclasses import replace

from longspan.server.decoder.decoder import sampling
from longspan.server.decoder.options import GenerationOptions
from longspan.server.decoder.template import PromptParts

PLAIN = PromptParts("", "", "", "", "", thinks=False)


def test_form_and_stops_begin_behind_the_reasoning_that_the_prompt_opens() -> None:
    """A form as the tokens spell its end, stops as the text does; without reasoning, at once."""
    options = GenerationOptions(stop_texts=("\n",), regex="a")
    at_once = sampling(options, PLAIN)
    assert (at_once.answer_begins, at_once.grammar.begins_after) == ("", "")
    thinks = replace(PLAIN, thinks=True)
    behind = sampling(options, thinks)
    assert (behind.answer_begins, behind.grammar.begins_after) == ("</think>", "</think>")
    harmony = replace(thinks, reasoning_end="assistantfinal", answer_begins="<|message|>")
    behind = sampling(options, harmony)
    assert behind.answer_begins == "assistantfinal"
    assert behind.grammar.begins_after == "<|message|>"
    assert sampling(GenerationOptions(), thinks).answer_begins == "</think>"
