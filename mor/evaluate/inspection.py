"""`python -m mor inspect`: what a trained model does with a text, token by token and by depth.

The measures are those of a run's final validation (`mor.evaluate.validation`), on a text of the
user's or on the held-out rows, for the final checkpoint or for every one that is kept. Routing is
that of inference, which sees the past only; the scores and the accuracy of the rule of inference
are reported under top-k, as in training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ledger.folder import FINAL, RunFolder
from mor.config import Config, ConfigError, UserError, to_dict
from mor.data.batches import Batches
from mor.data.needs import Need
from mor.data.packed import Corpus, Meta
from mor.data.tokenizer import Tokenizer, pieces
from mor.evaluate.validation import (
    FinalValidation,
    Validation,
    bits_per_byte,
    final_validation,
    validate,
)
from mor.export import context_of, tokenizer_of
from mor.model.routers.routes import Routes
from mor.model.transformer import Transformer
from mor.train import checkpoint
from mor.train.checkpoint import CorruptCheckpoint, OtherModel
from mor.train.corpus import corpus_of
from mor.train.folder import read_config
from mor.train.initial import DamagedWeights, trained_model
from mor.train.run import choose_device

SCHEMA = 1
CONTEXT = 2048  # tokens, of weights that do not say how many they were trained on
SHOWN = 20_000  # tokens of a text whose depths are kept
ALL = "all"


@dataclass(frozen=True)
class Text:
    """What is read: rows of tokens, where they are from, and how many are left out."""

    name: str
    batches: Batches
    tokens: int  # that are predicted
    left_out: int  # at the end of a text, as rows have one length


@dataclass(frozen=True)
class Depths:
    """Tokens in their order, as text, with the blocks that each took."""

    text: list[str]
    depth: list[int]


@dataclass(frozen=True)
class Measured:
    """One checkpoint."""

    checkpoint: str
    step: int | None
    validation: FinalValidation

    def as_json(self) -> dict[str, Any]:
        found = self.validation
        by_depth = found.nll_by_depth or {}
        return {
            "checkpoint": self.checkpoint,
            "step": self.step,
            "loss": found.losses,
            "routing": found.routing.as_json() if found.routing else None,
            "kv_statistics": found.kv_statistics,
            "nll_by_depth": {str(r): nll for r, nll in by_depth.items()} or None,
        }


@dataclass(frozen=True)
class Inspection:
    """What a model did with a text; `depths` are the last checkpoint's."""

    source: str
    text: Text
    settings: dict[str, Any]
    measured: tuple[Measured, ...]
    depths: Depths
    n_blocks: int  # that a token can pass

    def as_json(self) -> dict[str, Any]:
        batches = self.text.batches
        return {
            "schema": SCHEMA,
            "source": self.source,
            "text": self.text.name,
            "tokens": self.text.tokens,
            "left_out": self.text.left_out,
            "context": batches.seq_len,
            "settings": self.settings,
            "n_blocks": self.n_blocks,
            "checkpoints": [each.as_json() for each in self.measured],
            "depths": dataclasses.asdict(self.depths),
        }


def inspect(source: Path, text: Path | None, which: str) -> Inspection:
    """Measure a run or exported weights on a text file, or on the run's held-out rows.

    `which`: final, all, or the name of a checkpoint of the run. Raises UserError for a source,
    text or checkpoint that cannot be read.
    """
    model = trained_model(source)
    config = read_config(RunFolder(source)) if RunFolder(source).config_file.exists() else None
    rows = held_out(config, source) if text is None else text_rows(source, text)
    names = checkpoints(source, config, which)
    if config is not None:
        torch.set_num_threads(config.runtime.threads)
    device = choose_device(config) if config else torch.device("cpu")
    precision = _precision(config, device)
    measured = []
    for name in names:
        step = None if config is None else load_checkpoint(model, RunFolder(source), name)
        model.to(device)
        n_tokens = rows.batches.seq_len * rows.batches.n_val_rows
        limit = config.train.val_tokens if config and text is None else n_tokens
        found = final_validation(model, rows.batches, limit, precision)
        measured.append(Measured(name, step, found))
    settings = {"model": to_dict(model.model), "size": to_dict(model.size)}
    depths = depths_of(model, rows.batches, precision)
    return Inspection(source.name, rows, settings, tuple(measured), depths, model.n_blocks)


def _precision(config: Config | None, device: torch.device) -> torch.autocast:
    half = config is not None and config.train.precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=half)


def held_out(config: Config | None, source: Path) -> Text:
    """The rows that the run was validated on. Raises UserError for weights without a run."""
    if config is None:
        raise UserError(f"{source}: exported weights have no held-out text; add --text FILE")
    corpus = corpus_of(RunFolder(source), config.data, Need(val=config.train.val_tokens))
    batches = Batches(corpus, config.train.seq_len, 1, config.seed)
    tokens = min(config.train.val_tokens, batches.n_val_rows * batches.seq_len)
    return Text(f"held-out rows of {config.data.name}", batches, tokens, 0)


def text_rows(source: Path, path: Path) -> Text:
    """A text file in rows of one length, at most the model's context. Raises UserError."""
    try:
        text = path.read_bytes().decode()  # line ends as they are, which the model reads
    except OSError as error:
        raise UserError(f"--text {path}: cannot be read ({error.strerror}); name a file") from None
    except UnicodeDecodeError:
        raise UserError(f"--text {path}: is not UTF-8 text; save it as UTF-8") from None
    tokenizer = tokenizer_of(source)
    if tokenizer is None:
        raise UserError(
            f"{source}: no tokenizer stands beside its weights; name the run itself, or a folder "
            "that python -m mor export RUN out hf wrote"
        )
    tokens = np.asarray(tokenizer.encode([text])[0])
    if len(tokens) < 3:
        raise UserError(f"--text {path}: holds {len(text)} characters; give a text of some words")
    context = context_of(source) or CONTEXT
    windows = -(-(len(tokens) - 1) // context)
    length = (len(tokens) - 1) // windows
    corpus = _corpus(source, tokens, text, tokenizer)
    batches = Batches(corpus, length, 1, 0)
    return Text(str(path), batches, windows * length, len(tokens) - 1 - windows * length)


@dataclass(frozen=True)
class _OfText(Corpus):
    """A text in memory as a corpus; its tokenizer is the model's."""

    known: Tokenizer | None = None

    def tokenizer(self) -> Tokenizer:
        assert self.known is not None
        return self.known


def _corpus(source: Path, tokens: Any, text: str, tokenizer: Tokenizer) -> Corpus:
    meta = Meta(
        fingerprint="",
        tokenizer="",
        vocab_size=tokenizer.entries,
        separator=tokenizer.separator,
        dtype=str(tokens.dtype),
        train_tokens=len(tokens),
        val_tokens=len(tokens),
        train_documents=1,
        val_documents=1,
        val_bytes=max(1, len(text.encode())),
    )
    return _OfText(source, meta, tokens, tokens, known=tokenizer)


def checkpoints(source: Path, config: Config | None, which: str) -> list[str]:
    """Names of checkpoints, earliest first. Raises ConfigError for one that is not there."""
    if config is None:
        if which not in (FINAL, ALL):
            raise ConfigError("checkpoint", which, "exported weights have one", "leave it out")
        return [FINAL]
    folder = RunFolder(source).checkpoints
    there = [path.name for path in reversed(checkpoint.candidates(folder))]
    if which == ALL:
        return there
    if which not in there:
        raise ConfigError("checkpoint", which, "no such checkpoint", f"type {', '.join(there)}")
    return [which]


def load_checkpoint(model: Transformer, folder: RunFolder, name: str) -> int:
    """Read a checkpoint's weights into the model; returns its step. Raises DamagedWeights."""
    try:
        return checkpoint.load_model(folder.checkpoints / name, model.state_dict()).step
    except OtherModel as other:
        raise DamagedWeights(
            f"{folder.path}: {name} is of another model ({other}); leave it out"
        ) from None
    except CorruptCheckpoint as error:
        raise DamagedWeights(f"{folder.path}: {name} is damaged ({error}); leave it out") from None


def depths_of(model: Transformer, batches: Batches, precision: torch.autocast) -> Depths:
    """The blocks that each token took, of the first tokens."""
    tokens: list[int] = []
    depths: list[int] = []

    def watch(rows: Tensor, routed: Routes) -> None:
        tokens.extend(rows.flatten().tolist())
        depths.extend(routed.depths.flatten().tolist())

    validate(model, batches, SHOWN, "causal", precision, observers=(watch,))
    return Depths(pieces(batches.corpus.tokenizer(), tokens[:SHOWN]), depths[:SHOWN])


def lines_of(found: Inspection) -> Iterator[str]:
    """What the terminal shows."""
    text = found.text
    left = f", {text.left_out} at its end left out" if text.left_out else ""
    yield f"{found.source} on {text.name}: {text.tokens} tokens in rows of "\
          f"{text.batches.seq_len}{left}"  # fmt: skip
    if not routes(found):
        yield f"nothing is routed: every token takes all {found.n_blocks} blocks"
    for each in found.measured:
        yield from _lines_of(each, text.batches.corpus.meta)


def _lines_of(each: Measured, meta: Meta) -> Iterator[str]:
    found = each.validation
    at = "" if each.step is None else f" (step {each.step})"
    yield f"\n{each.checkpoint}{at}"
    yield f"  loss, causal       {_loss(found.causal)}"
    routing = found.routing
    by_depth = found.nll_by_depth or {}
    if routing is not None:
        if found.topk is not found.causal:
            yield f"  loss, top-k        {_loss(found.topk)}"
        share = " ".join(f"{100 * s:.1f}" for s in routing.depth_share)
        yield f"  blocks per token   {routing.mean_depth:.3f}; share of tokens by depth, %: {share}"
        if routing.sampling_accuracy:
            told = " ".join("-" if a is None else f"{100 * a:.1f}"
                            for a in routing.sampling_accuracy)  # fmt: skip
            yield f"  rule agrees, %     {told}"
        if not routing.has_scores:
            yield "  router scores      none: this router gives none"
        yield f"  dead positions, %  {100 * routing.dead_token_ratio:.1f}"
        by_depth = dict(enumerate(routing.nll_by_depth, start=1))
    if len(by_depth) > 1:
        told = "  ".join(
            f"{r}: {nll:.4f} ({bits_per_byte(nll, meta):.4f})" for r, nll in by_depth.items()
        )
        yield f"  loss at most r     {told} nats per token (bits per byte)"
    kv = found.kv_statistics
    if kv is not None:
        for kind in ("key", "value"):
            norms, cosines = kv[f"{kind}_norm"], np.asarray(kv[f"{kind}_cosine"])
            other = cosines[~np.eye(len(cosines), dtype=bool)]
            mean = f", cosine of two depths {other.mean():.3f}" if other.size else ""
            yield f"  {kind} norm".ljust(21) + f"{min(norms):.3g} to {max(norms):.3g}{mean}"


def _loss(found: Validation) -> str:
    return f"{found.nll:.4f} nats per token, {found.bits_per_byte:.4f} bits per byte"


def routes(found: Inspection) -> bool:
    """Whether tokens of this model take different depths."""
    return any(each.validation.routing is not None for each in found.measured)
