"""Texts that are hard to cut, and real ones to put between them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from tests.support.data import EXAMPLES, SHARED, read_jsonl_zst

HARD = (
    "It's the committee's 3rd report; they'd've said \"don't\" — at 12:30, for $1,234.50.",
    "第三条　甲方应于2024年3月31日前支付人民币1,200,000元。乙方：收到后；确认！是吗？好、的。",
    "東京タワーは333メートルです。カタカナ・ひらがな゛゜ー、々〆ヶ。ｶﾞｷﾞｸﾞ か\u3099き\u3099",
    "العربية: مرحبا بالعالم، هذا نصٌّ طويلٌ. ١٢٣ ٤٥٦؛ שלום עולם",
    "हिन्दी पाठ क\u093c ड़ ढ़ \u0958\u0959 है। ไทยไม่มีช่องว่าง ᄒ\u1161\u11ab글 한국어 문장입니다.",
    'def f(x: int) -> str:\n    """Doc."""\n    return f"{x:>9_}"  # x\n\n\tif a!=b:\n\t\tpass\n',
    "👩‍👩‍👧‍👦 👍🏽👍🏽 🇩🇪🇫🇷 ❤️‍🔥 x❤️ y\u200dz \ufeff\u200b\u2028\u2029\u0085",
    "line one\r\nline two\r\n\r\nline three\r\rline four\n\r\n",
    "e\u0301a\u0300\u0301 o\u0302\u0323 I\u0307 \u0130stanbul STRASSE straße ὈΔΥΣΣΕΎΣ ſt ﬁ K Å",
    "0 1 12 123 1234 12345 3.14159 1e-9 ٣٫١٤ ½ Ⅷ ² ①②③ 1\u0301 2 ",
    "| Name | Qty | Price |\n|---|---:|---|\n| bolts | 12 | 3.50 |\n| nuts  |   | n/a |\n",
    "see https://example.com/a/b?c=d&e=%20f#g or mailto:x@y.z; C:\\dir\\file.txt ~/x/./..",
    "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO==",
    "   \t  \n \n\n   \n\t\t x  \u00a0 \u3000 \u2003y   ",
    "<|im_start|>user <|im_end|>\n<｜User｜>hi<｜Assistant｜> [SEP] [CLS][MASK] a<|im_end|> b",
    "a\x00b\x01 c\x7f d\ufffd\ufffe e\U000e0001 \U0010ffff",
    "\u1885\n\u1886，\U00010341 \u1885 x\u1886\r\n",
)
ALPHABET = (
    *"aZſßσςΣİıéKÅ\u1885\u1886\U00010341我一龥龦あんアン・ーゝ゛゜゠\u3099\u309a",
    *"ㄱ가\u1100\u1161\u11a8\u0958क\u093c\u094d\u0301\u0308\u0323\u0345ʼªº",
    *"0159٣½Ⅷ²①",
    *"  \n\n\r\t\u00a0\u3000\u0085\u2028\x0b\x0c\x00\x1f\x7f",
    *"'’\"`.,;:!?-_/\\()[]{}<>|@#$%^&*+=~，。；：！？、「」…—￥",
    *"👍❤\ufe0f\u200d\u200b\ufeff🇩\U0010ffff",
    *("'s", "'S", "'ll", "'ſ", "\r\n", "\n\n", "<|im_end|>", "<｜User｜>", "[SEP]", "x, ", "中。"),
)


def hard_string(rng: random.Random, longest: int) -> str:
    """A random string of the alphabet."""
    return "".join(rng.choices(ALPHABET, k=rng.randint(1, longest)))


@lru_cache(maxsize=1)
def real_texts() -> tuple[str, ...]:
    """English and Chinese: the examples, and books and essays where the machine has them."""
    texts = [path.read_text("utf-8") for path in sorted(EXAMPLES.glob("*.md"))]
    for name in ("books.jsonl.zst", "paul_graham_essays.jsonl.zst"):
        path = SHARED / "longtext" / name
        if path.exists():
            texts += [record["text"] for record in read_jsonl_zst(path)]
    return tuple(texts)


def documents(count: int, *, seed: int) -> list[str]:
    """Short documents: stretches of real text and hard ones in turn."""
    rng = random.Random(seed)
    return [_document(rng, real_texts()) for _ in range(count)]


def _document(rng: random.Random, real: Sequence[str]) -> str:
    parts = []
    for _ in range(rng.randint(2, 5)):
        text = rng.choice(real)
        start = rng.randrange(max(1, len(text) - 400))
        parts += [text[start : start + rng.randint(20, 400)], rng.choice(HARD)]
    parts.append(hard_string(rng, 60))
    return rng.choice(("", " ", "\n", "\n\n")).join(parts)
