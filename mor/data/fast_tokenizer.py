"""A run's tokenizer as transformers' AutoTokenizer loads it: the same tokens, without our code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mor.data.tokenizer import FILE, SEPARATOR, ByteTokenizer, SubwordTokenizer, Tokenizer

CONFIG = "tokenizer_config.json"


def write_fast_tokenizer(tokenizer: Tokenizer, folder: Path, context: int | None) -> None:
    """Write tokenizer.json and its configuration. Text that spells the separator is text, and
    nothing is put before or after what is encoded."""
    if isinstance(tokenizer, SubwordTokenizer):
        form = json.loads(tokenizer.core.to_str())
        form["post_processor"] = None
        separator = tokenizer.core.id_to_token(tokenizer.separator)
    else:
        form, separator = byte_form(), SEPARATOR
    (folder / FILE).write_text(json.dumps(form, ensure_ascii=False) + "\n", encoding="utf-8")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": separator,
        "pad_token": separator,
        "padding_side": "left",
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }
    if context:
        config["model_max_length"] = context
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def byte_form() -> dict[str, Any]:
    """`ByteTokenizer` as a byte-level encoding without merges: byte b is entry b, 255 separates."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Core

    vocabulary = {character: byte for byte, character in enumerate(_byte_characters())}
    del vocabulary[_byte_characters()[ByteTokenizer.separator]]  # no text holds it
    vocabulary[SEPARATOR] = ByteTokenizer.separator
    core = Core(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(SEPARATOR, special=True)])
    form: dict[str, Any] = json.loads(core.to_str())
    return form


def _byte_characters() -> list[str]:
    """The character that stands for each byte in byte-level encodings (GPT-2's table): itself where
    it is printable, else the next free one from 256 on."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (chr(256 + n) for n in range(256))
    return [chr(byte) if byte in own else next(others) for byte in range(256)]
