"""The engine: requests in, tokens out. `generate` for lists; `submit`, `step` and `stream` for
servers. Continuous depth-wise batching stands in `runner`, memory in `tables`, order in
`scheduler`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mor.inference.clock import Statistics
from mor.inference.confidence import Confident, Exits
from mor.inference.request import (
    Chunk,
    Completion,
    EngineError,
    Request,
    Sampling,
    Settings,
    shown,
    whole_numbers,
)
from mor.inference.runner import Runner
from mor.inference.sampling import choose
from mor.inference.scheduler import Scheduler
from mor.inference.sizing import make_pools
from mor.inference.tables import Table, pages_of, streams_of
from mor.model.components import router_of
from mor.model.routers.course import Course
from mor.model.transfer import sent
from mor.model.transformer import Transformer


@dataclass(frozen=True)
class Event:
    """A new token of a request, or its end."""

    request: int
    token: int | None  # None: it ended without one (cancelled, scored only)
    reason: str | None = None  # stop | length | cancelled, with the last one


class Engine:
    """Serves one model. Raises ConfigError for `max_recursions` that it cannot have, EngineError
    for a pool that is too small."""

    def __init__(
        self,
        model: Transformer,
        settings: Settings | None = None,
        max_recursions: int | None = None,
        exits: Exits | None = None,
    ) -> None:
        self.model, self.settings = model.eval(), (settings or Settings()).checked()
        routes = router_of(model.model).routes
        decides = model.router if routes else model.recurrence
        self.course: Course = decides.course(model, max_recursions)
        if exits is not None:
            self.course = Confident(self.course, model, exits)
        self.streams = streams_of(
            model.model, model.layout, self.course.n_blocks, falls_back=exits is not None
        )
        self.pools = make_pools(model, self.streams, self.settings)
        self.scheduler = Scheduler(self.settings, self.streams, self.pools)
        self.runner = Runner(
            model, self.course, self.streams, self.pools, self.settings, self.scheduler.reserve
        )
        self.requests: dict[int, Request] = {}
        self.submitted = 0

    # -- requests ------------------------------------------------------------------------------

    def submit(self, prompt: Sequence[int], sampling: Sampling | None = None) -> int:
        """Queue a prompt; the number of the request. Raises EngineError for one that it cannot
        serve; nothing is queued then."""
        if not isinstance(sampling, Sampling | None):
            raise EngineError(f"sampling={shown(sampling)}: of the wrong type; give a Sampling")
        sampling = (sampling or Sampling()).checked()
        tokens = whole_numbers(prompt)
        if tokens is None:
            raise EngineError(
                f"prompt={shown(prompt)}: is no list of tokens; give whole numbers, as the "
                "model's tokenizer has them"
            )
        self._check(tokens, sampling)
        number = self.submitted
        self.submitted += 1
        table = Table(self.streams, self.pools)
        request = Request(number, len(tokens), list(tokens), sampling, table)
        self._note_documents(request)
        self.requests[number] = request
        self.scheduler.add(request)
        return number

    def _check(self, prompt: Sequence[int], sampling: Sampling) -> None:
        vocabulary, context = self.model.embed.num_embeddings, self.settings.context
        if not prompt:
            raise EngineError("prompt: is empty; give at least one token")
        wrong = next((t for t in prompt if not 0 <= t < vocabulary), None)
        if wrong is not None:
            raise EngineError(f"prompt: token {wrong} is not one of the model's {vocabulary}")
        total = len(prompt) + sampling.max_new
        if total > context:
            raise EngineError(
                f"prompt: {len(prompt)} tokens and max_new={sampling.max_new} are more than the "
                f"context of {context}; shorten one of them"
            )
        needed = pages_of(self.streams, total, self.settings.page)
        if any(n > pool.pages for n, pool in zip(needed, self.pools, strict=True)):
            shallow = self.settings.mean_depth is not None
            enough = "more, or no mean_depth," if shallow else f"{total} or more,"
            raise EngineError(
                f"pool_tokens: {total} tokens at full depth do not fit the pool of keys and "
                f"values; give {enough} or fewer tokens"
            )

    def cancel(self, number: int) -> None:
        """End a request now; what it has stays readable. Ended ones stay as they are."""
        request = self._request(number)
        if request.reason is None:
            self._end(request, "cancelled")

    def result(self, number: int) -> Completion:
        """What a request has come to so far."""
        return self._request(number).completion()

    def forget(self, number: int) -> Completion:
        """The same, and the engine keeps nothing of it."""
        self.cancel(number)
        return self.requests.pop(number).completion()

    def _request(self, number: int) -> Request:
        if number not in self.requests:
            raise EngineError(f"request {number}: is not known")
        return self.requests[number]

    # -- work ----------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return bool(self.scheduler.waiting or self.scheduler.running)

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One tick: every request in work goes one block, or one pass, further."""
        clock = self.runner.clock
        clock.switch("scheduling")
        self.scheduler.admit()
        with self.runner.precision:
            events = self._read_out(self.runner.tick(self.scheduler.chunks()))
        clock.switch(None)
        return events

    def stream(self, number: int) -> Iterator[int]:
        """The tokens of a request as they come; runs the engine, so others go on, too."""
        given, request = 0, self._request(number)
        while True:
            while given < len(request.new):
                given += 1
                yield request.new[given - 1]
            if request.reason is not None:
                return
            self.step()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling | Sequence[Sampling] | None = None,
    ) -> list[Completion]:
        """Continue all prompts, with one setting or one each."""
        each = (
            [sampling or Sampling()] * len(prompts)
            if sampling is None or isinstance(sampling, Sampling)
            else list(sampling)
        )
        if len(each) != len(prompts):
            raise EngineError(f"sampling: {len(each)} for {len(prompts)} prompts; give one each")
        numbers: list[int] = []
        try:
            for prompt, one in zip(prompts, each, strict=True):
                numbers.append(self.submit(prompt, one))
            while any(self.requests[n].reason is None for n in numbers):
                self.step()
        finally:
            found = [self.forget(n) for n in numbers]
        return found

    def _read_out(self, chunks: list[tuple[Chunk, Tensor]]) -> list[Event]:
        """Logits where they are needed, and what follows from them."""
        clock = self.runner.clock
        clock.switch("head")
        wanted: list[tuple[Chunk, Tensor]] = []
        for chunk, x in chunks:
            request = chunk.request
            request.chunk = None
            request.done += chunk.length
            request.depths += chunk.depth.tolist()
            scored = request.scored_in(chunk)
            if scored < chunk.length:
                wanted.append((chunk, x[scored:]))
            elif request.done == len(request.tokens):
                wanted.append((chunk, x[-1:]))
        if not wanted:
            return []
        states = torch.cat([x for _, x in wanted])
        logits = self.runner.head(states).float()  # (n, V)
        self._score(wanted, logits)
        ready, start = list[tuple[Request, int]](), 0
        for chunk, x in wanted:
            start += len(x)
            if chunk.request.done == len(chunk.request.tokens):
                ready.append((chunk.request, start - 1))
        if len(ready) < len(logits):
            ends = np.array([end for _, end in ready], np.int64)
            logits = logits.index_select(0, sent(ends, logits.device))
        return self._next([request for request, _ in ready], logits)

    def _score(self, wanted: list[tuple[Chunk, Tensor]], logits: Tensor) -> None:
        """Log-probabilities of the prompts' tokens after the last ones of chunks: (2, n) numbers,
        read at once."""
        scored, found, start = list[tuple[Request, int]](), list[Tensor](), 0
        for chunk, x in wanted:
            request, first = chunk.request, int(chunk.at[-1]) + 2 - len(x)
            targets = request.tokens[first : min(first + len(x), request.prompt)]
            if request.sampling.score and first >= request.sampling.score_from and targets:
                known = logits[start : start + len(targets)]
                ids = sent(np.array(targets), logits.device)
                logprobs = known.log_softmax(-1).gather(1, ids[:, None]).squeeze(1)
                found.append(torch.stack((logprobs, (known.argmax(-1) == ids).float())))
                scored.append((request, len(targets)))
            start += len(x)
        if not scored:
            return
        logprobs, greedy = torch.cat(found, 1).tolist()
        start = 0
        for request, n in scored:
            request.logprobs += logprobs[start : start + n]
            request.greedy += map(bool, greedy[start : start + n])
            start += n

    def _next(self, requests: list[Request], logits: Tensor) -> list[Event]:
        """What follows from the logits (R, V) behind the last token of each request."""
        if not requests:
            return []
        samplings, ns = [r.sampling for r in requests], [r.n_new for r in requests]
        tokens = choose(logits, samplings, ns)
        return [self._take(one, token) for one, token in zip(requests, tokens, strict=True)]

    def _take(self, request: Request, token: int) -> Event:
        if request.sampling.max_new == 0:
            return self._end(request, "length")
        request.tokens.append(token)
        self._note_documents(request)
        self.runner.counts.new_tokens += 1
        if token in request.sampling.stop:
            return self._end(request, "stop", token)
        if request.n_new == request.sampling.max_new:
            return self._end(request, "length", token)
        return Event(request.number, token)

    def _end(self, request: Request, reason: str, token: int | None = None) -> Event:
        request.reason = reason
        self.scheduler.leave(request)
        return Event(request.number, token, reason)

    def _note_documents(self, request: Request) -> None:
        """Where the document of each token starts."""
        separator = self.model.separator
        if separator is None:
            return
        for i in range(len(request.documents), len(request.tokens)):
            closed = i > 0 and request.tokens[i - 1] == separator
            request.documents.append(i if i == 0 or closed else request.documents[-1])

    # -- figures -------------------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """What the engine has done since it was made."""
        counts, settings = self.runner.counts, self.settings
        runs, tokens = max(1, counts.block_runs), max(1, counts.tokens)
        return Statistics(
            counts.ticks,
            counts.new_tokens,
            counts.block_chunks / (runs * settings.max_batch),
            counts.depth / tokens,
            counts.mixed_runs / runs,
            sum(pool.bytes for pool in self.pools),
            counts.peak_kv_bytes,
            sum(k.nbytes * 2 for pool in self.pools for k in pool.keys.values()),
            self.scheduler.preemptions,
            dict(self.runner.clock.seconds),
        )
