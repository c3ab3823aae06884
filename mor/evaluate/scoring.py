"""Log-likelihoods of tokens and continuations, routed as at inference.

`Scorer` is all that the harness needs of a model; `CausalScorer` is one by the model's own causal
forward pass and its decoder with caches, `EngineScorer` (`engine_scorer`) one by the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from mor.evaluate.validation import FORWARD_TOKENS
from mor.inference.decode import Decoder
from mor.inference.request import Sampling
from mor.inference.sampling import choose
from mor.model.components import router_of
from mor.model.transformer import Output, Transformer

Stop = Callable[[list[int]], bool]  # whether the tokens so far are enough


@dataclass(frozen=True)
class Window:
    """Tokens that a model reads, and those that it has to predict: the last of what follows."""

    read: tuple[int, ...]  # at most the context
    predict: tuple[int, ...]  # 1 to len(read); the last one follows the last one read


@dataclass(frozen=True)
class Scored:
    """What a model says of a window's tokens."""

    logprob: float  # nats, of all of them
    greedy: bool  # each is the likeliest


@dataclass(frozen=True)
class Asked:
    """A prompt, and how it is to be continued."""

    prompt: Sequence[int]
    n_new: int  # tokens, at most
    stop: Stop  # until so of the new ones
    temperature: float = 0.0  # 0: the likeliest token
    seed: int = 0  # sampled tokens depend on it alone

    def kept(self, context: int) -> list[int]:
        """The last tokens of the prompt, cut so that the new ones have room in the context; half of
        the context at least."""
        return list(self.prompt[-max(context - self.n_new, context // 2, 1) :])


class Scorer(Protocol):
    """A model that scores and continues token sequences."""

    @property
    def context(self) -> int:
        """Tokens that it reads at most."""

    def score(self, windows: Sequence[Window]) -> list[Scored]:
        """One result for each window, in their order."""

    def generate(self, asked: Sequence[Asked]) -> list[list[int]]:
        """The new tokens of each, in their order."""

    @property
    def mean_recursions(self) -> float | None:
        """Recursions per token read by `score`; None of a model that routes nothing."""


def windows(before: Sequence[int], tokens: Sequence[int], context: int) -> Iterator[Window]:
    """The windows that predict `tokens`, each token once, after `before`, which is not empty.

    One window with the last tokens of `before` where all `tokens` fit the context, else windows
    that follow each other, the last of them with a full context (the harness's rolling windows).
    """
    everything = (*before, *tokens)
    first = len(before)  # place of the first token to predict
    while first < len(everything):
        end = min(first + context, len(everything))
        if first == len(before) and len(tokens) > context:
            end = first + context - min(len(before), context) + 1  # as much as stands before
        start = max(0, end - 1 - context)
        yield Window(everything[start : end - 1], everything[first:end])
        first = end


class CausalScorer:
    """A model by its own causal forward pass. Windows of like lengths share a batch."""

    def __init__(
        self,
        model: Transformer,
        context: int,
        precision: torch.autocast,
        between: Callable[[], None] = lambda: None,  # called before each batch and answer
    ) -> None:
        self.model, self.context, self.precision = model.eval(), context, precision
        self.between = between
        self._tokens, self._recursions = 0, 0

    @torch.no_grad()
    def score(self, windows: Sequence[Window]) -> list[Scored]:
        order = sorted(range(len(windows)), key=lambda i: -len(windows[i].read))
        found: dict[int, Scored] = {}
        while order:
            self.between()
            width = len(windows[order[0]].read)
            batch = order[: max(1, FORWARD_TOKENS // width)]
            order = order[len(batch) :]
            found.update(zip(batch, self._batch([windows[i] for i in batch], width), strict=True))
        return [found[i] for i in range(len(windows))]

    def _batch(self, batch: list[Window], width: int) -> Iterator[Scored]:
        """Windows padded on the right, where nothing that is read can see it."""
        device = next(self.model.parameters()).device
        rows = [[*window.read, *[window.read[-1]] * (width - len(window.read))] for window in batch]
        tokens = torch.tensor(rows, device=device)  # (B, S)
        with self.precision:
            out: Output = self.model(tokens, routing="causal")
        assert out.logits is not None
        self._count(out, batch)
        for row, window in zip(out.logits, batch, strict=True):
            end = len(window.read)
            logits = row[end - len(window.predict) : end]  # (n, V)
            wanted = torch.tensor(window.predict, device=device)[:, None]
            logprobs = logits.log_softmax(-1).gather(1, wanted).double()
            yield Scored(logprobs.sum().item(), bool((logits.argmax(-1) == wanted[:, 0]).all()))

    def _count(self, out: Output, batch: list[Window]) -> None:
        depths = out.routed.depths  # (B, S)
        for row, window in zip(depths, batch, strict=True):
            self._tokens += len(window.read)
            self._recursions += int(row[: len(window.read)].sum())

    @property
    def mean_recursions(self) -> float | None:
        routes = router_of(self.model.model).routes
        return self._recursions / self._tokens if self._tokens and routes else None

    @torch.no_grad()
    def generate(self, asked: Sequence[Asked]) -> list[list[int]]:
        return [self._continue(one) for one in asked]

    def _continue(self, asked: Asked) -> list[int]:
        self.between()
        device = next(self.model.parameters()).device
        decoder, new = Decoder(self.model, 1), list[int]()
        sampling = Sampling(temperature=asked.temperature, seed=asked.seed)
        logits = None
        with self.precision:
            for token in asked.kept(self.context):
                logits = decoder.step(torch.tensor([token], device=device)).logits
            while len(new) < asked.n_new:
                assert logits is not None, "a prompt has at least one token"
                new += choose(logits[:, 0], [sampling], [len(new)])
                if asked.stop(new):
                    break
                logits = decoder.step(torch.tensor([new[-1]], device=device)).logits
        return new
