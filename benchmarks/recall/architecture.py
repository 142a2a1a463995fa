"""The decoder that is trained: SmolLM3's architecture, with windows where positions count.

Layers with rotary positions see 32 tokens back and put a record together; layers without positions
look it up at any distance (the pattern of Cohere's Command A, arXiv:2504.00698).
"""

from __future__ import annotations

from typing import Any

from benchmarks.recall.vocabulary import END, PAD, SIZE

LOCAL_WINDOW = 32
CONTEXT_TOKENS = 131_072
LOCAL, GLOBAL = "sliding_attention", "full_attention"
LAYERS = (LOCAL, LOCAL, GLOBAL, GLOBAL)


def config() -> Any:
    """The configuration of transformers."""
    from transformers import AutoConfig

    return AutoConfig.for_model(
        "smollm3",
        vocab_size=SIZE,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=len(LAYERS),
        head_dim=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.08,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        use_sliding_window=True,
        sliding_window=LOCAL_WINDOW,
        layer_types=list(LAYERS),
        no_rope_layers=[int(kind == LOCAL) for kind in LAYERS],
        attention_bias=True,
        tie_word_embeddings=True,
    )
