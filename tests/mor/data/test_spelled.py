"""The text of tokens one at a time: joined, the pieces are the text of all of them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Core

from mor.data.tokenizer import (
    SEPARATOR,
    UNKNOWN,
    ByteTokenizer,
    SubwordTokenizer,
    Tokenizer,
    pieces,
    spelled,
)
from tests.mor.data.conftest import make_texts

BYTES = [f"<0x{i:02X}>" for i in range(256)]  # of SentencePiece, for what has no entry


def trained(core: Core, alphabet: list[str]) -> Core:
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=[SEPARATOR], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(make_texts(30), trainer)
    return core


def byte_level() -> SubwordTokenizer:
    core = Core(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return SubwordTokenizer(trained(core, pre_tokenizers.ByteLevel.alphabet()))


def metaspace() -> SubwordTokenizer:
    core = Core(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    return SubwordTokenizer(trained(core, []))


def sentencepiece() -> SubwordTokenizer:
    """As Llama's: spaces are a character, what has no entry is bytes."""
    core = Core(models.BPE())
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    model = json.loads(trained(core, []).to_str())["model"]
    vocabulary = model["vocab"] | {name: len(model["vocab"]) + i for i, name in enumerate(BYTES)}
    merges = [tuple(merge) for merge in model["merges"]]
    core.model = models.BPE(vocabulary, merges, byte_fallback=True, unk_token=BYTES[0])
    return SubwordTokenizer(core)


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "bytes": ByteTokenizer,
    "byte_level": byte_level,
    "metaspace": metaspace,
    "sentencepiece": sentencepiece,
}
KNOWN = {name: make() for name, make in MAKERS.items()}
LETTERS = st.characters(exclude_categories=("Cs",), exclude_characters=UNKNOWN)
TEXTS = st.lists(
    st.one_of(st.sampled_from(["the", "router", " ", "  ", "écrit", "データ", "🙂", "."]), LETTERS),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("name", KNOWN)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3), cut=st.integers(0, 12))
@example(texts=["the model is one block of tokens"], cut=3)
@example(texts=["the router ", " of the law"], cut=1)
def test_pieces_joined_are_the_text(name: str, texts: list[str], cut: int) -> None:
    """Of several documents, separators between them; of a continuation behind its prompt, too."""
    tokenizer = KNOWN[name]
    tokens = [int(token) for row in tokenizer.encode(texts) for token in row]
    found = pieces(tokenizer, tokens)
    assert len(found) == len(tokens)
    assert "".join(found) == tokenizer.decode(tokens)
    prompt, rest = tokens[:cut], tokens[cut:]
    before = tokenizer.decode(prompt)
    if not before.endswith(UNKNOWN):
        whole = before + "".join(spelled(tokenizer, rest, prompt))
        assert whole == tokenizer.decode(tokens)


def test_words_have_their_spaces() -> None:
    tokenizer = KNOWN["metaspace"]
    row = tokenizer.encode(["the law of the token"])[0].tolist()
    assert "".join(pieces(tokenizer, row)) == "the law of the token"
    assert any(piece.startswith(" ") for piece in pieces(tokenizer, row))


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece", "bytes"])
def test_a_character_of_several_tokens_stands_at_the_last(name: str) -> None:
    tokenizer = KNOWN[name]
    row = tokenizer.encode(["x🙂x"])[0].tolist()
    found = pieces(tokenizer, row)
    at = next(i for i, piece in enumerate(found) if "🙂" in piece)
    assert found[at - 3 : at] == ["", "", ""]


@pytest.mark.parametrize("name", KNOWN)
def test_a_token_that_only_the_model_has_is_unknown(name: str) -> None:
    tokenizer = KNOWN[name]
    row = tokenizer.encode(["the law"])[0][:-1].tolist()
    found = pieces(tokenizer, [*row, tokenizer.entries, *row])
    assert found[len(row)] == UNKNOWN
    assert "".join(found[: len(row)]) == "the law"


@pytest.mark.parametrize("name", ["bytes", "byte_level", "sentencepiece"])
@given(tokens=st.lists(st.integers(0, 255), max_size=12))
def test_any_tokens_have_a_piece_each(name: str, tokens: list[int]) -> None:
    """Bytes that are no text among them."""
    assert len(pieces(KNOWN[name], tokens)) == len(tokens)
