"""Documents to cut up: a small set of our own, and pieces of real books where there are any."""

from __future__ import annotations

import base64
import random
from functools import lru_cache

from tests.support.data import EXAMPLES, SHARED, read_jsonl_zst

_BASE64 = base64.b64encode(bytes(range(256))).decode()

OWN = {
    "english": "The parties agreed, on 3.5% terms, that Mr. O'Neil's firm wouldn't pay "
    "£1,000,000 — it's \"final\"; they'll see.  New paragraph:\n\n\nnaïve café. I'VE seen.\n",
    "chinese": "乙方应当在八小时内，以电话通知甲方；费用为人民币3,325,000元（大写：叁佰万）。"
    "第二条 定义\n"
    "“合同”一词，是什么意思？参见第7.2条：“违约”！A公司、B公司。\n",
    "japanese": "本契約は、2025年4月1日に発効する。カタカナ・テスト゛゜ラーメン、ひらがなも。\n"
    "ヴァイオリン゠ダブル、ﾊﾝｶｸ が\u3099 は\u309a。甲　乙　丙\n",
    "arabic": "السلام عليكم، كيف حالك؟ اتفق الطرفان على ٣٫٥٪؛ وَالسَّلامُ، ثم 12 يومًا.\n",
    "other scripts": "Привет, мир! नमस्ते दुनिया क़ाग़ज़ 한국어 문장입니다. "
    "Ελληνικά ΤΕΛΟΣ τέλος, שלום ไทย ภาษา\n",
    "code": 'def f(x: int) -> str:\n    return f"{x!r:>10}"  # ok\n\tif (a&&b||!c) { i++; }\r\n\r\n'
    "<a href='x'>y</a>\n\n\n    # end\n",
    "emoji": "👩‍👩‍👧‍👦 ok 👍🏽, 🇨🇭 flags\u200d\ufe0f and ❤️‍🔥 mixed 🙂word🙂\n词🙂，x🙂 y\n",
    "crlf": "one\r\ntwo\r\n\r\n three \r\n\tfour\rfive\r\r six, \r\nseven",
    "combining marks": "e\u0301te\u0301 a\u0300\u0323 \u0958\n\u0958， Å\u030a ﬁ İstanbul ẞß "
    "\u1100\u1161\u11a8 가\u11a8 x\u0338 a \u0301b 、\u3099 o\u0308\n",
    "numbers": "618 27 43 1,894 3.14159 1e-9 0x1F 2025-04-17 ½ Ⅷ ١٢٣ １２３ 12345678 9 四百 5㎏\n",
    "tables": "| Year | Tonnes |\r\n|---|---:|\n| 2024 | 1,894 |\n| 2025 |  |\na\tb\tc\n1\t2\t3\n",
    "urls": "see https://example.test/a?b=c&d=%20#frag, user@example.test C:\\temp\\x or ./y_z\n",
    "base64": f"key={_BASE64}\n{_BASE64[:80]}\n",
    "white space": "a \n \n  b\t\t \r\n c\u00a0d\u3000e\u2028f\u0085g   \n\n \tz  \u2003 y"
    + " " * 40,
    "control tokens": "<|im_end|> <|im_start|>user a<｜User｜>x <think> y</think> [SEP] [CLS]a "
    "<｜end▁of▁sentence｜>b<|endoftext|>\n[MASK]，[PAD] <|im_end|>\n",
    "odd": "\ufeffBOM \x00 nul \x1b esc x\x07 y 's 'S 're 'LL don't\u2019s "
    "A.B.C. ...!!! \ufffd z\n",
}

# What the rule must survive, one character or token text at a time.
ALPHABET = (
    *"aZé漢字한わカㄱλЖשعक1९２½Ⅷ",
    *" \n\r\t\u0085\u2028\u00a0\u3000\u200b\u200d\u00ad",
    *".,;:!?'\"-_()[]<>|/*#$%",
    *"，。；：！？、・゛゜゠ー」』（…—“”’",
    *"\u0301\u0323\u0338\u3099\u309a\u094d\ufe0f\u20e3",
    *"\u0958\u0929\u1885\U00010341İßςΣǅ\u1100\u1161\u11a8ﬁÅ\ufeff\ufffd\x00\x07\x1b",
    *("🙂", "🇨", "🏽", "'s", "'LL", "don't", "e\u0301", "12345", "  ", "\r\n", "word", "カタ"),
    *("<|im_end|>", "<｜User｜>", "<think>", "[SEP]", "<｜end▁of▁sentence｜>", "[MASK]"),
)


@lru_cache(maxsize=1)
def long_texts() -> tuple[str, ...]:
    """Books and essays, else the examples of this repository."""
    folder = SHARED / "longtext"
    if not folder.exists():
        return tuple(path.read_text("utf-8") for path in sorted(EXAMPLES.glob("*.md")))
    return tuple(
        str(record["text"])
        for name in ("books", "paul_graham_essays")
        for record in read_jsonl_zst(folder / f"{name}.jsonl.zst")
    )


def document(chance: random.Random) -> str:
    """300 to 1500 characters: stretches of long texts between stretches of our own set."""
    size, parts, length = chance.randint(300, 1500), [], 0
    while length < size:
        source = chance.choice([*OWN.values()] if chance.random() < 0.6 else long_texts())
        start = chance.randrange(len(source)) if chance.random() < 0.7 else 0
        parts.append(source[start : start + chance.randint(5, 400)])
        length += len(parts[-1])
    return "".join(parts)[:size]


def adversarial(chance: random.Random) -> str:
    """A short string over ``ALPHABET`` with a few places that look like safe cuts."""
    parts = []
    for _ in range(chance.randint(2, 12)):
        parts.append(chance.choice(ALPHABET))
        if chance.random() < 0.3:
            parts.append(chance.choice("a1漢カж") + chance.choice(" \n\r\t，。；：！？、"))
    return "".join(parts)
