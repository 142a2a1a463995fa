"""Writes a decoder whose weights are set by hand so that it finds a number in a long text.

python examples/finding_decoder.py FOLDER

Two layers are an induction head (Olsson et al., 2022, arXiv:2209.11895): in the first each token
fetches the one before it, in the second the last token looks for what once followed it. So the
first layer looks near and the second anywhere, and ``longspan fidelity`` has something to find.
"""

from __future__ import annotations

import json
import math
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from longspan.worker.fidelity.haystack import filler
from longspan.worker.fidelity.needle import PLACES, Needle
from longspan.worker.fidelity.prompt import CLOSING, OPENING

USER, ASSISTANT, UNKNOWN = "<|user|>", "<|assistant|>", "<|unknown|>"
TEMPLATE = f"{USER}{{{{ messages[0].content }}}}{ASSISTANT}"
HEAD = 256
THETA = 1e30
TURNING = 26
"""Pairs of a head's numbers that turn with the position; the others stand still, up to a
hundredth of a turn in 64k tokens, and tell words apart."""

PAIRS = HEAD // 2
STILL = [*range(TURNING, PAIRS), *range(PAIRS + TURNING, HEAD)]
WORDS = 128
CONTENT, DIGITS = STILL[:WORDS], STILL[-1]
"""Where in a head a word has its number, and digits theirs."""

HIDDEN = 3 * WORDS
TOKEN, BEFORE, NEXT = (slice(part * WORDS, (part + 1) * WORDS) for part in range(3))
"""Parts of the residual stream: a token, the one before it, and the one that follows."""

SHARP, MATCH, DIGIT = 30.0, 40.0, 20.0
"""Scores: of nearness, of a token that followed the same word, of a digit."""


def main(folder: Path) -> None:
    """Write tokenizer, configuration and weights."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, write_tokenizer(folder))
    print(f"longspan fidelity --model {folder}")


def write_tokenizer(folder: Path) -> dict[str, int]:
    """One token a word, digit or sign; returns their ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    needles = [Needle("1234567890", place) for place in PLACES]
    texts = [OPENING, CLOSING, *(text for n in needles for text in (n.sentence, n.question))]
    trainer = trainers.WordLevelTrainer(
        special_tokens=[UNKNOWN, USER, ASSISTANT], vocab_size=WORDS, show_progress=False
    )
    tokenizer.train_from_iterator([*texts * 9, *islice(filler(0), 2000)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"chat_template": TEMPLATE, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    ids: dict[str, int] = tokenizer.get_vocab()
    return ids


@torch.no_grad()
def write_model(folder: Path, ids: dict[str, int]) -> None:
    """A Qwen2 of two layers and one head that reads 65,536 tokens."""
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=WORDS,
        hidden_size=HIDDEN,
        head_dim=HEAD,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=65_536,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=ids["."],
        pad_token_id=ids[UNKNOWN],
    )
    model: Any = Qwen2ForCausalLM(config)
    for name, weight in model.named_parameters():
        weight.fill_(1.0 if "norm" in name else 0.0)
    one = torch.eye(WORDS)
    model.model.embed_tokens.weight[:, TOKEN] = one
    model.lm_head.weight[:, NEXT] = one
    first, second = (layer.self_attn for layer in model.model.layers)
    # The norms stretch a vector to the length of sqrt(HIDDEN); one token alone, then two.
    _fetch(first, amplitude=math.sqrt(HIDDEN), into=BEFORE, strength=1.0)
    _look_before(first)
    _fetch(second, amplitude=math.sqrt(HIDDEN / 2), into=NEXT, strength=10.0)
    _look_for_followers(second, math.sqrt(HIDDEN / 2), ids)
    model.generation_config = GenerationConfig(eos_token_id=ids["."], pad_token_id=ids[UNKNOWN])
    model.save_pretrained(folder)


def _fetch(attention: Any, *, amplitude: float, into: slice, strength: float) -> None:
    """Carry the token that is looked at into a part of the stream."""
    attention.v_proj.weight[:WORDS, TOKEN] = torch.eye(WORDS) / amplitude
    attention.o_proj.weight[into, :WORDS] = torch.eye(WORDS) * strength


def _look_before(attention: Any) -> None:
    """Constants, turned by one position against each other: most alike one token apart."""
    angle = THETA ** (-torch.arange(TURNING, dtype=torch.double) / PAIRS)
    length = math.sqrt(SHARP * math.sqrt(HEAD))
    attention.q_proj.bias[:TURNING] = length * torch.cos(angle)
    attention.q_proj.bias[PAIRS : PAIRS + TURNING] = -length * torch.sin(angle)
    attention.k_proj.bias[:TURNING] = length


def _look_for_followers(attention: Any, amplitude: float, ids: dict[str, int]) -> None:
    """Ask with the own token for one behind the same token, and for digits rather than words."""
    size = math.sqrt(MATCH * math.sqrt(HEAD)) / amplitude
    attention.q_proj.weight[CONTENT, TOKEN] = size * torch.eye(WORDS)
    attention.k_proj.weight[CONTENT, BEFORE] = size * torch.eye(WORDS)
    # An answer begins as if "is" had just been read.
    attention.q_proj.weight[CONTENT[ids["is"]], ids[ASSISTANT]] = size
    digits = [ids[str(digit)] for digit in range(10)]
    attention.q_proj.bias[DIGITS] = 1.0
    attention.k_proj.weight[DIGITS, digits] = DIGIT * math.sqrt(HEAD) / amplitude


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
