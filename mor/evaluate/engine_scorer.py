"""Scores and continuations by the engine: requests of all lengths in one batch. Design notes:

- an engine is made for each call, as long as its longest request, and gone after it;
- narrow models are scored by the plain forward pass: it is faster where a layer costs less than
  gathering its batch (`NARROW`). Continuations are always faster in the engine;
- on a GPU, and under bf16, the plain forward pass scores and the engine continues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mor.evaluate.scoring import Asked, CausalScorer, Scored, Scorer, Window
from mor.evaluate.validation import FORWARD_TOKENS
from mor.inference import Completion, Engine, Sampling, Settings
from mor.model.components import router_of
from mor.model.transformer import Transformer

MOST = 64  # requests in work at once
NARROW = 64  # width of the residual stream under which the forward pass scores


def scorer_of(
    model: Transformer,
    context: int,
    bf16: bool,  # under autocast, as it was trained
    between: Callable[[], None] = lambda: None,  # called before each batch, step and answer
) -> Scorer:
    """The fastest scorer that computes what the model's own forward pass does."""
    device = model.embed.weight.device
    precision = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    causal = CausalScorer(model, context, precision, between)
    engine = EngineScorer(model, context, between, bf16)
    narrow = model.size.d_model < NARROW
    return Both(causal, engine) if narrow or bf16 or device.type != "cpu" else engine


@dataclass(frozen=True)
class Both:
    """One scores, the other continues."""

    scores: Scorer
    continues: Scorer

    @property
    def context(self) -> int:
        return self.scores.context

    @property
    def mean_recursions(self) -> float | None:
        return self.scores.mean_recursions

    def score(self, windows: Sequence[Window]) -> list[Scored]:
        return self.scores.score(windows)

    def generate(self, asked: Sequence[Asked]) -> list[list[int]]:
        return self.continues.generate(asked)


class EngineScorer:
    """A model in the engine. Routed as at inference, as the engine always is."""

    def __init__(
        self,
        model: Transformer,
        context: int,
        between: Callable[[], None] = lambda: None,  # called before each step
        bf16: bool = False,
    ) -> None:
        self.model, self.context, self.between = model.eval(), context, between
        self.bf16 = bf16
        self._tokens, self._recursions = 0, 0

    def score(self, windows: Sequence[Window]) -> list[Scored]:
        order = sorted(range(len(windows)), key=lambda i: -len(windows[i].read))
        if not order:
            return []
        engine = self._engine(len(order), len(windows[order[0]].read) + 1)
        places = {}
        for i in order:
            read, predict = windows[i].read, windows[i].predict
            sampling = Sampling(max_new=0, score=True, score_from=len(read) + 1 - len(predict))
            places[engine.submit([*read, predict[-1]], sampling)] = i
        found: dict[int, Scored] = {}
        while engine.busy:
            self.between()
            for event in engine.step():
                done, i = engine.forget(event.request), places[event.request]
                found[i] = Scored(sum(done.logprobs), all(done.greedy))
                self._count(done, len(windows[i].read))
        return [found[i] for i in range(len(windows))]

    def _count(self, done: Completion, read: int) -> None:
        self._tokens += read
        self._recursions += sum(done.depths[:read])

    @property
    def mean_recursions(self) -> float | None:
        routes = router_of(self.model.model).routes
        return self._recursions / self._tokens if self._tokens and routes else None

    def generate(self, asked: Sequence[Asked]) -> list[list[int]]:
        prompts = [one.kept(self.context) for one in asked]
        if not prompts:
            return []
        longest = max(len(p) + one.n_new for p, one in zip(prompts, asked, strict=True))
        engine, of = self._engine(len(prompts), longest), {}
        for i, (prompt, one) in enumerate(zip(prompts, asked, strict=True)):
            sampling = Sampling(max_new=one.n_new, temperature=one.temperature, seed=one.seed)
            of[engine.submit(prompt, sampling)] = i
        new: list[list[int]] = [[] for _ in asked]
        while engine.busy:
            self.between()
            for event in engine.step():
                i = of[event.request]
                assert event.token is not None
                new[i].append(event.token)
                if event.reason is not None or asked[i].stop(new[i]):
                    engine.forget(event.request)
        return new

    def _engine(self, requests: int, longest: int) -> Engine:
        most = min(MOST, requests)
        chunk = max(1, min(longest, FORWARD_TOKENS // most))
        settings = Settings(max_batch=most, chunk=chunk, context=longest, bf16=self.bf16)
        return Engine(self.model, settings)
