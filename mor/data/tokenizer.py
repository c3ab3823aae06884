"""Tokenizers: text to token numbers, every document closed by the separator.

`bytes` needs no vocabulary: a token is a byte, and 255, which UTF-8 never uses, separates.
`train`, a tokenizer.json and a name on the hub are all byte-pair encodings run by `tokenizers`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from mor.config import ConfigError, DataConfig
from mor.data.fingerprint import tokenizer_file
from mor.data.hub import first_line, hub_tokenizer
from mor.data.texts import LongText, Text, size_of
from mor.data.words import at_words, splits_words

if TYPE_CHECKING:
    import tokenizers

log = logging.getLogger(__name__)

FILE = "tokenizer.json"
SEPARATOR_FILE = "separator.txt"  # beside it, where data.separator names one
SEPARATOR = "<|endoftext|>"
SEPARATORS = (SEPARATOR, "<|end_of_text|>", "</s>", "<eos>", "[EOS]")  # the first one known is used
TRAINING_BYTES = 64 * 2**20  # text that a tokenizer is trained on, at most: it is held in memory
TRAINING_PART = 2**14  # characters of a long text that are counted at once; 256 such are held
LARGE = 2**16  # entries of a vocabulary whose training takes minutes
BATCH_CHARS = 2**20  # text that is tokenised at once
LONGEST_CHARACTER = 4  # bytes of UTF-8
UNKNOWN = "\ufffd"

Tokens = npt.NDArray[np.unsignedinteger]


class Tokenizer(Protocol):
    """What packing and decoding need of a tokenizer."""

    @property
    def entries(self) -> int:
        """One more than the largest token number."""

    @property
    def separator(self) -> int:
        """The token after each document."""

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens (n,) of each text, the separator last and nowhere else."""

    def encode_parts(self, parts: Iterable[str]) -> Iterator[Tokens]:
        """The same tokens for one text that comes in parts."""

    def decode(self, tokens: npt.ArrayLike) -> str:
        """The text of tokens (n,), separators left out."""


class ByteTokenizer:
    """UTF-8 bytes."""

    entries = 256
    separator = 255

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        return [np.frombuffer(text.encode() + b"\xff", dtype=np.uint8) for text in texts]

    def encode_parts(self, parts: Iterable[str]) -> Iterator[Tokens]:
        for part in parts:
            yield np.frombuffer(part.encode(), dtype=np.uint8)
        yield np.array([self.separator], dtype=np.uint8)

    def decode(self, tokens: npt.ArrayLike) -> str:
        content = np.asarray(tokens, dtype=np.uint8).tobytes()
        return content.replace(b"\xff", b"").decode("utf-8", errors="replace")


class SubwordTokenizer:
    """A tokenizer.json run by `tokenizers`."""

    def __init__(self, core: tokenizers.Tokenizer, separator: str | None = None) -> None:
        """Raises ValueError if the separator, or any known one, is not among its entries."""
        vocabulary = core.get_vocab(with_added_tokens=True)
        names = SEPARATORS if separator is None else (separator,)
        separator = next((name for name in names if name in vocabulary), None)
        if separator is None:
            raise ValueError(f"has no entry {' or '.join(names)} to separate documents")
        _make_special(core, separator)
        core.no_truncation()
        core.no_padding()
        core.encode_special_tokens = True  # a document that spells the separator does not end there
        self.core = core
        self.separator = vocabulary[separator]
        self.entries = max(vocabulary.values()) + 1
        self._splits_words = splits_words(json.loads(core.to_str()))

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        encodings = self.core.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array([*encoding.ids, self.separator], np.uint32) for encoding in encodings]

    def encode_parts(self, parts: Iterable[str]) -> Iterator[Tokens]:
        whole = at_words(parts) if self._splits_words else ["".join(parts)]
        for part in whole:
            yield np.array(self.core.encode_batch_fast([part], add_special_tokens=False)[0].ids,
                           np.uint32)  # fmt: skip
        yield np.array([self.separator], np.uint32)

    def decode(self, tokens: npt.ArrayLike) -> str:
        return self.core.decode(np.asarray(tokens).tolist(), skip_special_tokens=True)


def _make_special(core: tokenizers.Tokenizer, separator: str) -> None:
    """Let a document that spells the separator be encoded as text, as it is for special tokens."""
    from tokenizers import AddedToken

    core.add_special_tokens([AddedToken(separator, special=True, normalized=False)])


def batches_of(texts: Iterable[Text]) -> Iterator[list[Text]]:
    """Texts in lists of about BATCH_CHARS characters, to be encoded together; a long one alone."""
    batch: list[Text] = []
    size = 0
    for text in texts:
        if isinstance(text, LongText):
            if batch:
                yield batch
            yield [text]
            batch, size = [], 0
            continue
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encoded(tokenizer: Tokenizer, texts: Sequence[Text]) -> Iterator[tuple[Text, Iterable[Tokens]]]:
    """Each text of a batch with its tokens, in parts."""
    short = [text for text in texts if isinstance(text, str)]
    tokens = iter(tokenizer.encode(short) if short else ())
    for text in texts:
        if isinstance(text, LongText):
            yield text, tokenizer.encode_parts(text.parts())
        else:
            yield text, [next(tokens)]


def make_tokenizer(
    data: DataConfig, training_texts: Callable[[], Iterable[Text]], folder: Path, progress: bool
) -> Tokenizer:
    """The tokenizer that data.tokenizer names, kept in `folder` beside the tokens.

    `training_texts` opens the training documents, which `train` reads.
    Raises ConfigError for a tokenizer that cannot be had or has more entries than data.vocab_size.
    """
    tokenizer: Tokenizer
    if data.tokenizer == "bytes":
        tokenizer = ByteTokenizer()
    else:
        core = (
            _train(data, training_texts(), progress) if data.tokenizer == "train" else _load(data)
        )
        tokenizer = _subword(core, data)
        (folder / FILE).write_text(core.to_str(), encoding="utf-8")
        if data.separator is not None:
            (folder / SEPARATOR_FILE).write_text(data.separator, encoding="utf-8")
    _refuse_larger(tokenizer, data)
    return tokenizer


def load_tokenizer(data: DataConfig) -> Tokenizer:
    """The tokenizer.json that data.tokenizer names. Raises ConfigError as `make_tokenizer`."""
    tokenizer = _subword(_load(data), data)
    _refuse_larger(tokenizer, data)
    return tokenizer


def _subword(core: tokenizers.Tokenizer, data: DataConfig) -> SubwordTokenizer:
    try:
        return SubwordTokenizer(core, data.separator)
    except ValueError as error:
        raise ConfigError(
            "data.tokenizer",
            data.tokenizer,
            str(error),
            "type data.separator=<one of its entries> or data.tokenizer=train",
        ) from error


def _refuse_larger(tokenizer: Tokenizer, data: DataConfig) -> None:
    if tokenizer.entries > data.vocab_size:
        raise ConfigError(
            "data.vocab_size",
            data.vocab_size,
            f"the tokenizer {data.tokenizer} has {tokenizer.entries} entries",
            f"type data.vocab_size={tokenizer.entries}",
        )


def kept_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that the tokens in `folder` were made with."""
    if not (folder / FILE).exists():
        return ByteTokenizer()
    from tokenizers import Tokenizer as Core

    named = folder / SEPARATOR_FILE
    separator = named.read_text(encoding="utf-8") if named.exists() else None
    return SubwordTokenizer(Core.from_file(str(folder / FILE)), separator)


def spelled(
    tokenizer: Tokenizer, tokens: Iterable[int], after: Sequence[int] = ()
) -> Iterator[str]:
    """The text of each token as it comes, behind the text of the tokens `after`; a character that
    several tokens spell stands at the last of them. A token that only the model has (a padded
    vocabulary) is UNKNOWN.

    A token is read behind those before it: by itself, a word of SentencePiece has lost its space.
    """
    behind, held = list(after), list[int]()  # the newest tokens with a text, those without one
    before = tokenizer.decode(behind)
    for token in tokens:
        if token >= tokenizer.entries:
            held = []
            yield UNKNOWN
            continue
        held.append(token)
        both = tokenizer.decode([*behind, *held])
        text = both[len(before) :] if both.startswith(before) else tokenizer.decode(held)
        if text.endswith(UNKNOWN) and len(held) < LONGEST_CHARACTER:
            yield ""
            continue
        yield text
        behind, held = held if text else [*behind, *held], []
        before = tokenizer.decode(behind)


def pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """The text of each token, as `spelled`."""
    return list(spelled(tokenizer, tokens))


def _load(data: DataConfig) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Core

    path = tokenizer_file(data) or hub_tokenizer(data.tokenizer)
    try:
        return Core.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(
            "data.tokenizer",
            data.tokenizer,
            f"not a tokenizer.json ({first_line(error)})",
            "name a file that `tokenizers` has saved, or type data.tokenizer=train",
        ) from error


def _train(data: DataConfig, documents: Iterable[Text], progress: bool) -> tokenizers.Tokenizer:
    """A byte-level BPE; the same texts give the same tokenizer."""
    from tokenizers import Tokenizer as Core
    from tokenizers import decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if data.vocab_size <= len(alphabet):
        raise ConfigError(
            "data.vocab_size",
            data.vocab_size,
            f"data.tokenizer=train needs {len(alphabet)} bytes and a separator at least",
            "type data.vocab_size=4096 or data.tokenizer=bytes",
        )
    texts: Iterable[str] = _first_bytes(documents)
    if data.vocab_size > LARGE:
        texts = list(texts)  # read twice
        refuse_vocabulary(data, texts)
    core = Core(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=data.vocab_size,
        special_tokens=[SEPARATOR],
        initial_alphabet=alphabet,
        show_progress=progress and sys.stderr.isatty(),  # in a log it prints empty lines
    )
    core.train_from_iterator(texts, trainer)
    if (entries := core.get_vocab_size()) < data.vocab_size:
        log.warning("%s: %s", data.name, unused_entries(data.vocab_size, entries))
    return core


def unused_entries(vocab_size: int, entries: int) -> str:
    """What is said of a corpus whose text gave fewer entries than were asked for."""
    return (
        f"data.vocab_size={vocab_size}: the text gave {entries:,} entries, no token has the rest; "
        f"data.vocab_size={entries} makes the same tokens and a smaller embedding"
    )


def refuse_vocabulary(data: DataConfig, texts: Iterable[Text]) -> None:
    """Raises ConfigError for a large vocabulary that training texts cannot give.

    An entry joins two others inside a word, so words that differ give at most one less than their
    bytes. Smaller vocabularies are trained: those take seconds.
    """
    if data.vocab_size <= LARGE:
        return
    from tokenizers import pre_tokenizers

    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    words: set[str] = set()
    most = len(pre_tokenizers.ByteLevel.alphabet()) + 1  # and the separator
    for text in _first_bytes(texts):
        new = {word for word, _ in split(text)} - words
        words |= new
        most += sum(len(word) - 1 for word in new)  # a character of ByteLevel is a byte
        if most >= data.vocab_size:
            return
    raise ConfigError(
        "data.vocab_size",
        data.vocab_size,
        f"the training text of data={data.name} cannot give more than {most:,} entries",
        f"type data.vocab_size={min(LARGE, most)} or less, or name more text",
    )


def _first_bytes(texts: Iterable[Text]) -> Iterator[str]:
    seen = 0
    for text in texts:
        if isinstance(text, LongText):
            yield from at_words(text.parts(), TRAINING_PART)  # the same words are counted
        else:
            yield text
        seen += size_of(text)
        if seen >= TRAINING_BYTES:
            return
