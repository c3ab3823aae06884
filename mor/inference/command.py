"""`python -m mor generate`: prompts of a user's, continued by a trained model."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ledger.errors import UserError
from mor.data.tokenizer import Tokenizer, spelled
from mor.export import context_of, tokenizer_of, trained_precision
from mor.inference.confidence import RULES, Exits
from mor.inference.engine import Engine
from mor.inference.request import Completion, EngineError, Sampling, Settings
from mor.model.transformer import Transformer
from mor.train.initial import trained_model

MOST = 32  # prompts in work at once
NEW = 64  # tokens of a continuation by default, or what the context leaves


@dataclass(frozen=True)
class Trained:
    """What a folder holds that generating needs."""

    model: Transformer
    tokenizer: Tokenizer
    context: int  # tokens of a prompt and its continuation, at most
    bf16: bool = False  # computed so, as it was trained


def open_trained(source: Path) -> Trained:
    """A finished run, or exported weights with their tokenizer, on the GPU where there is one.
    Raises UserError."""
    model, tokenizer = trained_model(source), tokenizer_of(source)
    on_gpu = torch.cuda.is_available()
    model = model.to("cuda" if on_gpu else "cpu")
    if tokenizer is None:
        raise EngineError(
            f"{source}: no tokenizer stands beside its weights; name the run itself, or a folder "
            "that python -m mor export RUN out hf wrote"
        )
    context = context_of(source) or Settings().context
    half = trained_precision(source) != "fp32"  # also where the folder does not say
    return Trained(model, tokenizer, context, on_gpu and half)


FLAGS = (
    *("max_new", "temperature", "top_k", "top_p", "seed", "max_recursions", "pool_tokens"),
    *("exit_rule", "exit_threshold"),
)
_NAMED = re.compile(rf"(?<![-\w.])({'|'.join((*FLAGS, 'prompt'))})(=|(?=:))")
_OF_EXITS = re.compile(r"\bexits\.(?=rule|threshold)")


@contextlib.contextmanager
def named_by_flags() -> Iterator[None]:
    """Mistakes in settings of the engine as mistakes in the flags that set them."""
    try:
        yield
    except UserError as mistake:
        said = _OF_EXITS.sub("exit_", str(mistake))
        raise UserError(
            _NAMED.sub(lambda m: "--" + m[1].replace("_", "-") + " " * bool(m[2]), said)
        ) from None


def exits_of(rule: str | None, threshold: float | None) -> Exits | None:
    """The rule of `--exit-rule` and `--exit-threshold`. Raises UserError for one without the
    other."""
    if rule is None and threshold is None:
        return None
    if rule is None:
        raise UserError(
            f"--exit-threshold {threshold}: of no rule; add --exit-rule {' or '.join(RULES)}"
        )
    if threshold is None:
        raise UserError(f"--exit-rule {rule}: has no threshold; add --exit-threshold 0.05")
    return Exits(rule, threshold)


class Session:
    """Prompts in one engine, whose requests are read in their order."""

    def __init__(
        self,
        trained: Trained,
        prompts: Sequence[str],
        sampling: Sampling,
        max_new: int | None,
        max_recursions: int | None,
        pool_tokens: int | None,
        exits: Exits | None = None,
    ) -> None:
        """Raises UserError for what cannot be served: nothing is generated then."""
        if sampling.temperature == 0 and (sampling.top_k is not None or sampling.top_p < 1):
            raise EngineError(
                "temperature=0.0: takes the likeliest token, so top-k and top-p change nothing; "
                "type --temperature 1 with them"
            )
        self.tokenizer = trained.tokenizer
        settings = Settings(
            max_batch=min(MOST, len(prompts)),
            context=trained.context,
            pool_tokens=pool_tokens,
            bf16=trained.bf16,
        )
        self.engine = Engine(trained.model, settings, max_recursions, exits)
        self.prompts = [_encode(self.tokenizer, text) for text in prompts]
        stopping = replace(sampling, stop=(self.tokenizer.separator,))
        self.numbers = [
            self.engine.submit(
                tokens, replace(stopping, max_new=_new_tokens(tokens, max_new, trained.context))
            )
            for tokens in self.prompts
        ]

    def text(self, i: int) -> Iterator[str]:
        """The continuation of prompt `i`, as it comes."""
        return spelled(self.tokenizer, self.engine.stream(self.numbers[i]), self.prompts[i])

    def depths(self, i: int) -> Iterator[str]:
        """A line for each token of prompt and continuation: the blocks that it took, its text."""
        done, blocks = self.finish(i), self.engine.course.n_blocks
        tokens = self.prompts[i] + done.tokens
        for at, text in enumerate(spelled(self.tokenizer, tokens)):
            depth = done.depths[at] if at < len(done.depths) else 0  # the newest is not fed back
            yield f"{depth or '-':>3} {'#' * depth:<{blocks}} {text!r}"

    def finish(self, i: int) -> Completion:
        """Prompt `i` to its end."""
        for _ in self.engine.stream(self.numbers[i]):
            pass
        return self.engine.result(self.numbers[i])


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    try:
        return [int(token) for token in tokenizer.encode([text])[0][:-1]]
    except UnicodeEncodeError:  # bytes of the command line that are not text
        raise EngineError(f"prompt={text!a}: is not UTF-8; type it in UTF-8") from None


def _new_tokens(tokens: Sequence[int], max_new: int | None, context: int) -> int:
    """New tokens of a prompt. Raises EngineError for a prompt that leaves no room for one."""
    if len(tokens) >= context:
        raise EngineError(
            f"prompt: {len(tokens)} tokens leave no room in the model's context of {context}; "
            "shorten it"
        )
    return min(NEW, context - len(tokens)) if max_new is None else max_new
