"""Folders of decoders: what is read from them, and which ones a worker refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from longspan.worker.failures import StartFailure
from longspan.worker.models.decoder_files import find_decoder
from longspan.worker.models.vocabulary import open_tokenizer
from tests.support.data import shared_data
from tests.worker.decoders import tiny_decoder

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
SHARDS = "100KB"


def set_config(folder: Path, **changes: object) -> None:
    """Change keys of config.json."""
    change_json(folder / "config.json", **changes)


def change_json(path: Path, **changes: object) -> None:
    """Change keys of a JSON object in a file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def rename(folder: Path, old: str, new: str) -> None:
    """Give a file of the folder another name."""
    (folder / old).rename(folder / new)


def cut(path: Path, length: int) -> None:
    """Keep the first bytes of a file."""
    path.write_bytes(path.read_bytes()[:length])


def first_shard(folder: Path) -> Path:
    """The first of several weight files."""
    return min(folder.glob("model-*.safetensors"))


def point_index(folder: Path, name: object) -> None:
    """Let the index name another file for one of the weights."""
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = name
    (folder / INDEX).write_text(json.dumps(index))


def add_tokens(folder: Path, *, special: bool) -> None:
    """Let the tokenizer have a token more than the model has embeddings."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(["<one more>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def test_the_files_say_what_the_worker_must_know(tmp_path: Path) -> None:
    """Name, sizes and stop tokens come from the folder."""
    folder = tiny_decoder("qwen2", tmp_path / "Some-Model", context_tokens=1000)
    files = find_decoder(folder)
    assert (files.name, files.folder) == ("Some-Model", folder)
    assert (files.context_tokens, files.vocabulary) == (1000, 384)
    assert files.stop_tokens == (2, 4)


def test_stories260k_is_read(tmp_path: Path) -> None:
    """A published model, with its one end-of-text token as a plain number."""
    files = find_decoder(shared_data("models/stories260K/hf"))
    assert (files.context_tokens, files.vocabulary, files.stop_tokens) == (512, 512, (2,))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda f: (f / WEIGHTS).unlink(), "has no model.safetensors"),
        (lambda f: rename(f, WEIGHTS, "pytorch_model.bin"), r"only pickled weights \(pytorch_m"),
        (lambda f: cut(f / WEIGHTS, 5000), "damaged or no safetensors file"),
        (lambda f: cut(f / WEIGHTS, 0), "damaged or no safetensors file"),
        (lambda f: (f / WEIGHTS).write_bytes(b"\x80\x02" * 99), "damaged or no safetensors file"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json cannot be read"),
        (lambda f: add_tokens(f, special=False), "has token 384, the model only 384 embeddings"),
        (lambda f: set_config(f, model_type="new"), "transformers knows no model type 'new'"),
        (lambda f: set_config(f, model_type=None), "transformers knows no model type None"),
        (
            lambda f: set_config(f, model_type="new", auto_map={"AutoConfig": "code.Config"}),
            "model type 'new' needs code that must be trusted",
        ),
        (lambda f: set_config(f, hidden_size="wide"), "config.json is not usable: .*hidden_size"),
        (lambda f: set_config(f, max_position_embeddings=0), "no usable max_position_embeddings"),
        (
            lambda f: set_config(f, architectures=["Qwen2ForSequenceClassification"]),
            "Qwen2ForSequenceClassification is no decoder",
        ),
        (
            lambda f: set_config(f, quantization_config={"quant_method": "gptq", "bits": 4}),
            "quantised by gptq are not supported",
        ),
        (lambda f: set_config(f, layer_types=["linear_attention"] * 3), "layers of linear_att"),
        (
            lambda f: change_json(f / "generation_config.json", eos_token_id=384),
            "end-of-text token 384 is no token",
        ),
        (lambda f: (f / "generation_config.json").write_text("[]"), "holds no JSON object"),
    ],
)
def test_an_unusable_folder_is_refused_in_one_line(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    """Every fault of a folder has its own message."""
    spoil(tiny_decoder("qwen2", tmp_path))
    with pytest.raises(StartFailure, match=message) as failure:
        find_decoder(tmp_path)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: first_shard(f).unlink(), r"names model-00001-of-\d+.safetensors, which is abs"),
        (lambda f: cut(first_shard(f), 3000), "model-00001.* is damaged"),
        (lambda f: (f / INDEX).write_text("{}"), "is no index of weights"),
        (lambda f: (f / INDEX).write_text('{"weight_map": {}}'), "is no index of weights"),
        (lambda f: (f / INDEX).write_text('{"weight_map": []}'), "is no index of weights"),
        (lambda f: cut(f / INDEX, 100), "is no index of weights"),
        (lambda f: point_index(f, 7), "is no index of weights"),
        (lambda f: point_index(f, "../model.safetensors"), "which is no file beside it"),
        (lambda f: point_index(f, "weights.bin"), "which is no file beside it"),
    ],
)
def test_unusable_shards_are_refused_in_one_line(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    """An index must name whole files that lie beside it."""
    spoil(tiny_decoder("qwen2", tmp_path, shard_bytes=SHARDS))
    with pytest.raises(StartFailure, match=message) as failure:
        find_decoder(tmp_path)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "bert is an encoder"),
        ({"model_type": "t5", "d_model": 8}, "is an encoder"),
        ({"model_type": "vit"}, "no decoder of text for vit"),
        ({"model_type": "bloom"}, "attention of bloom cannot be replaced"),
        ({"model_type": "mamba"}, "mamba cannot be replaced|mamba keeps a recurrent state"),
        ({"model_type": "gemma2"}, r"gemma2 caps attention logits \(attn_logit_softcapping\)"),
        ({"model_type": "llama4_text"}, "layers of chunked_attention"),
        ({"model_type": "mllama"}, "no decoder of text for mllama_text_model"),
    ],
)
def test_architectures_that_cannot_be_served_are_refused(
    tmp_path: Path, config: dict[str, object], message: str
) -> None:
    """What the seam cannot compute is refused by name, before any weight is looked at."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StartFailure, match=message):
        find_decoder(tmp_path)


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    """The message names the folder."""
    with pytest.raises(StartFailure, match=r"model folder .*absent does not exist"):
        find_decoder(tmp_path / "absent")


def test_stop_tokens_come_from_the_first_file_that_names_some(tmp_path: Path) -> None:
    """generation_config.json, then config.json, then the tokenizer's settings; then none."""
    tiny_decoder("llama", tmp_path)
    change_json(tmp_path / "generation_config.json", eos_token_id=[5, 2, 5])
    assert find_decoder(tmp_path).stop_tokens == (5, 2)
    (tmp_path / "generation_config.json").unlink()
    set_config(tmp_path, eos_token_id=3)
    assert find_decoder(tmp_path).stop_tokens == (3,)
    config = json.loads((tmp_path / "config.json").read_text()) | {"eos_token_id": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert find_decoder(tmp_path).stop_tokens == (2,)
    change_json(tmp_path / "tokenizer_config.json", eos_token={"content": "<|im_end|>"})
    assert find_decoder(tmp_path).stop_tokens == (4,)
    (tmp_path / "tokenizer_config.json").unlink()
    assert find_decoder(tmp_path).stop_tokens == ()


def test_a_special_token_above_the_embeddings_is_let_through(tmp_path: Path) -> None:
    """Text-only Gemma 3 has one, for images; no other kind of token may lie there."""
    add_tokens(tiny_decoder("qwen2", tmp_path), special=True)
    assert open_tokenizer(tmp_path, 384).get_vocab_size() == 385
    with pytest.raises(StartFailure, match="has token 383, the model only 383"):
        open_tokenizer(tmp_path, 383)


def test_the_fingerprint_is_of_the_configuration_and_every_weight(tmp_path: Path) -> None:
    """Equal files give equal fingerprints wherever they lie; one changed byte gives another."""
    first = tiny_decoder("qwen2", tmp_path / "a", shard_bytes=SHARDS)
    second = tiny_decoder("qwen2", tmp_path / "b", shard_bytes=SHARDS)
    fingerprint = find_decoder(first).fingerprint
    assert fingerprint == find_decoder(second).fingerprint
    shard = first_shard(second)
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    changed = find_decoder(second).fingerprint
    set_config(first, rms_norm_eps=1e-5)
    assert len({fingerprint, changed, find_decoder(first).fingerprint}) == 3


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_scaling_that_depends_on_the_row_is_refused(kind: str, tmp_path: Path) -> None:
    """Its keys would depend on what shares a step, and stored pages would be wrong."""
    rope: dict[str, object] = {"rope_type": kind, "rope_theta": 10_000.0, "factor": 4.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
        rope |= {"original_max_position_embeddings": 1024}
    folder = tiny_decoder("llama", tmp_path, rope_parameters=rope)
    with pytest.raises(StartFailure, match="rotary frequencies"):
        find_decoder(folder)
