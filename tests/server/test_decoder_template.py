"""Prompts are what transformers would write, split around the documents."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from longspan.server.decoder.jinja import ChatTemplate
from longspan.server.decoder.template import SENTINEL, PromptParts, load_template
from longspan.server.errors import ConfigError
from longspan.server.tasks.task import Ask, Prompt, Summarize, Task
from tests.support.data import shared_data

NOW = datetime(2026, 5, 4)
BOS = {
    "__type": "AddedToken",
    "content": "<s>",
    "lstrip": False,
    "normalized": False,
    "rstrip": False,
    "single_word": False,
}
TOKENS: dict[str, Any] = {"bos_token": BOS, "eos_token": "</s>"}
QWEN = """{%- if tools %}{{ tools | tojson }}{%- endif %}
{%- if messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + messages[0].content }}
{%- else %}{{ '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
LLAMA = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date_string + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate') }}
{% endif %}
{% if message['content'] is string %}{% set text = message['content'] %}
{% else %}{% set text = message['content'][0]['text'] %}{% endif %}
{{ '<start_of_turn>' + message['role'] + '\n' + text | trim + '<end_of_turn>\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
PARTS_ONLY = """{% for message in messages %}<|{{ message['role'] }}|>
{%- for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}
{%- endif %}{% endfor %}{% endfor %}<|assistant|>"""
GENERATION = """{% for message in messages %}{% if message.role == 'assistant' %}
{% generation %}{{ message.content }}{% endgeneration %}{% break %}
{% endif %}<u>{{ {'a': "<&'é"} | tojson }}{{ message.content }}</u>{% endfor %}{{ eos_token }}"""
THINKING = QWEN.replace("assistant\\n' }}{%- endif", "assistant\\n<think>\\n' }}{%- endif")
NOT_THINKING = QWEN.replace(
    "assistant\\n' }}{%- endif", "assistant\\n<think>\\n\\n</think>\\n\\n' }}{%- endif"
)
HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
)
TEMPLATES = {
    "qwen": QWEN,
    "llama": LLAMA,
    "gemma": GEMMA,
    "generation": GENERATION,
    "thinking": THINKING,
    "not_thinking": NOT_THINKING,
}
TASKS: list[Task] = [
    Ask("What is {{ it }}?"),
    Ask("And <|im_end|> this?", 1),
    Summarize(2),
    Prompt("Do <think> it. "),
]


def folder_with(folder: Path, **config: object) -> Path:
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENS | config))
    return folder


def whole(parts: PromptParts, document: str) -> str:
    return parts.prefix + document + parts.suffix


def content(parts: PromptParts, document: str) -> str:
    return parts.opening + document + parts.closing


def rendered_by_transformers(template: str, text: str) -> str:
    """``apply_chat_template`` of a tokenizer with these special tokens."""
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = template
    messages = [{"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@pytest.mark.parametrize("task", TASKS, ids=repr)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_what_transformers_renders(name: str, task: Task, tmp_path: Path) -> None:
    """The parts around a document are the whole message's, cut at the document."""
    template = load_template(folder_with(tmp_path, chat_template=TEMPLATES[name]))
    parts = template.parts(task, datetime.now())
    expected = rendered_by_transformers(TEMPLATES[name], content(parts, "A {{ document }}."))
    assert whole(parts, "A {{ document }}.") == expected


def test_the_template_of_a_published_model_is_rendered_as_transformers_does() -> None:
    """DeepSeek-V3 and R1 share it; its special tokens are objects."""
    folder = shared_data("tokenizers", "deepseek_v3")
    source = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    parts = load_template(folder).parts(Ask("Why?"), NOW)
    expected = rendered_by_transformers(source, content(parts, "Because."))
    assert whole(parts, "Because.") == expected.replace("<s>", "<｜begin▁of▁sentence｜>")
    assert parts.tail == "<｜Assistant｜>"
    assert not parts.thinks


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_task_shares_the_prefix(name: str, tmp_path: Path) -> None:
    """And the separator and the tail: only what follows the documents depends on the task."""
    template = load_template(folder_with(tmp_path, chat_template=TEMPLATES[name]))
    prompts = [template.parts(task, NOW) for task in TASKS]
    assert len({(parts.prefix, parts.separator, parts.tail) for parts in prompts}) == 1
    assert len({parts.suffix for parts in prompts}) == len(TASKS)
    assert SENTINEL not in prompts[0].prefix + prompts[0].suffix


@pytest.mark.parametrize(
    ("name", "thinks"), [("qwen", False), ("thinking", True), ("not_thinking", False)]
)
def test_an_open_block_of_reasoning_is_seen(name: str, thinks: bool, tmp_path: Path) -> None:
    """An empty block that is closed again is none."""
    template = load_template(folder_with(tmp_path, chat_template=TEMPLATES[name]))
    assert template.parts(Ask("Why?"), NOW).thinks == thinks


def test_the_harmony_format_begins_in_its_reasoning(tmp_path: Path) -> None:
    """Its channels are special tokens, of which the text keeps the names."""
    source = HARMONY + "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    parts = load_template(folder_with(tmp_path, chat_template=source)).parts(Ask("Why?"), NOW)
    assert parts.tail.endswith("<|start|>assistant<|channel|>analysis<|message|>")
    assert (parts.thinks, parts.reasoning_end) == (True, "assistantfinal")


def test_a_template_that_takes_lists_of_parts_works(tmp_path: Path) -> None:
    """Some models that also see images take nothing else."""
    template = load_template(folder_with(tmp_path, chat_template=PARTS_ONLY))
    parts = template.parts(Prompt("Go."), NOW)
    assert (parts.head, parts.tail) == ("<|user|>", "<|assistant|>")


def test_the_template_is_taken_from_where_models_keep_it(tmp_path: Path) -> None:
    """The default of several named ones; a file of its own goes first."""
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": QWEN}]
    folder = folder_with(tmp_path, chat_template=named)
    assert load_template(folder).parts(Ask("Why?"), NOW).head.startswith("<|im_start|>system")
    (folder / "chat_template.jinja").write_text(GEMMA)
    head = load_template(folder).parts(Ask("Why?"), NOW).head
    assert head == "<s><start_of_turn>user\n"


def test_special_tokens_are_also_found_in_their_older_file(tmp_path: Path) -> None:
    """``tokenizer_config.json`` goes first; a token that is null is not there."""
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": "<old>", "eos_token": "<e>"}')
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": null}')
    (tmp_path / "chat_template.jinja").write_text(
        "{{bos_token}}{{messages[0].content}}{{eos_token}}"
    )
    parts = load_template(tmp_path).parts(Prompt("Go."), NOW)
    assert (parts.head, parts.tail) == ("", "<e>")


def test_a_model_without_a_template_goes_on_with_the_text(tmp_path: Path) -> None:
    """The document, a blank line, the question, and where the answer begins."""
    template = load_template(tmp_path)
    assert whole(template.parts(Ask(" Who? "), NOW), "Text.") == "Text.\n\nQuestion: Who?\nAnswer:"
    assert whole(template.parts(Prompt(" And "), NOW), "Text.") == "Text.\n\n And "
    summary = whole(template.parts(Summarize(1), NOW), "Text.")
    assert summary == "Text.\n\nSummary in one sentence:"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ('{"chat_template": "{% for %}"}', "does not compile"),
        ('{"chat_template": "{{ raise_exception(\'only tools\') }}"}', "only tools"),
        ('{"chat_template": "no message"}', "shows the message 0 times"),
        ('{"chat_template": "{{ messages }}{{ messages }}"}', "shows the message 2 times"),
        ('{"chat_template": "{{ 1 / 0 }}"}', "cannot be used"),
        ('{"chat_template": [{"name": "rag", "template": "x"}]}', "no default chat template"),
        ('{"chat_template": 3}', "no default chat template"),
        ("[]", "not a JSON object"),
        ("{", "tokenizer_config.json"),
    ],
)
def test_a_template_that_cannot_be_used_is_a_clear_error(
    config: str, reason: str, tmp_path: Path
) -> None:
    """Found when the server starts, not at the first question."""
    (tmp_path / "tokenizer_config.json").write_text(config)
    with pytest.raises(ConfigError, match=reason):
        load_template(tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__closure__ }}",
    ],
)
def test_a_template_cannot_reach_out_of_its_sandbox(source: str, tmp_path: Path) -> None:
    """Templates come with models, and models from anywhere."""
    with pytest.raises(ConfigError):
        load_template(folder_with(tmp_path, chat_template=source))


def test_the_date_is_the_one_that_is_passed_in() -> None:
    """Rendering reads no clock."""
    rendered = ChatTemplate("{{ strftime_now('%Y-%m-%d') }}", {}).render("", NOW)
    assert rendered == "2026-05-04"
