"""The words around the documents: what the model is told before and after them."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.server.tasks.task import Ask, Prompt, Summarize, Task


@dataclass(frozen=True, slots=True)
class Instructions:
    """A user's message but for its documents.

    Attributes:
        opening: before the first document; the same for every task, so that all questions
            about a document share their first tokens.
        separator: between two documents.
        closing: after the last document; holds the caller's words.
    """

    opening: str
    separator: str
    closing: str


def chat_instructions(task: Task) -> Instructions:
    """For a model that follows instructions."""
    return Instructions(
        "Read the text first. What to do with it is said after it.\n\n<document>\n",
        "\n</document>\n\n<document>\n",
        f"\n</document>\n\n{_chat_request(task)}",
    )


def plain_instructions(task: Task) -> Instructions:
    """For a model without a chat template, which goes on with the text it reads."""
    return Instructions("", "\n\n", f"\n\n{_plain_request(task)}")


def _chat_request(task: Task) -> str:
    match task:
        case Ask(question, max_citations):
            return (
                "Answer the question from the text above and from nothing else. Support the answer "
                f"with {_count(max_citations, 'short quotation')}, copied word for word from the "
                "text and put in double quotation marks. If the text does not answer the question, "
                "say so. Answer in the language of the question.\n\n"
                f"Question: {question.strip()}"
            )
        case Summarize(max_sentences):
            return (
                f"Summarize the text above in {_count(max_sentences, 'sentence')}, in the language "
                "of the text. Put what you copy from it word for word in double quotation marks."
            )
        case Prompt(text):
            return text.strip()


def _plain_request(task: Task) -> str:
    match task:
        case Ask(question, _):
            return f"Question: {question.strip()}\nAnswer:"
        case Summarize(max_sentences):
            return f"Summary in {_count(max_sentences, 'sentence')}:"
        case Prompt(text):
            return text


def _count(number: int, noun: str) -> str:
    return f"one {noun}" if number == 1 else f"at most {number} {noun}s"
