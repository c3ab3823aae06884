"""Who is in work: first come, first served. A request that loses its pages starts again, first in
the queue; its tokens so far are its prompt then. The oldest request never loses its own."""

from __future__ import annotations

from collections import deque

import numpy as np

from mor.inference.request import Chunk, Request, Settings
from mor.inference.tables import Pool, Streams, pages_of


class Scheduler:
    def __init__(self, settings: Settings, streams: Streams, pools: list[Pool]) -> None:
        self.settings, self.streams, self.pools = settings, streams, pools
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # oldest first
        self.preemptions = 0

    def add(self, request: Request) -> None:
        self.waiting.append(request)

    def admit(self) -> None:
        """Take in the next requests while there is a place and room for their tokens so far."""
        while self.waiting and len(self.running) < self.settings.max_batch:
            if self.running and not self._fits(self.waiting[0]):
                return
            request = self.waiting.popleft()
            self.running.append(request)
            self.running.sort(key=lambda one: one.number)

    def _fits(self, request: Request) -> bool:
        needed = pages_of(self.streams, len(request.tokens) + 1, self.settings.page)
        return all(len(pool.free) >= n for pool, n in zip(self.pools, needed, strict=True))

    def chunks(self) -> list[Chunk]:
        """The next tokens of every request that has none in flight."""
        made = []
        for request in self.running:
            if request.chunk is None:
                end = min(len(request.tokens), request.done + self.settings.chunk)
                at = np.arange(request.done, end, dtype=np.int64)
                everyone = np.arange(len(at))
                request.chunk = Chunk(request, at, at[:0], everyone, everyone, np.zeros_like(at))
                made.append(request.chunk)
        return made

    def reserve(self, stream: int, chunk: Chunk, n: int) -> None:
        """Pages for `n` tokens that a stream is about to take; where there are none, the youngest
        requests give theirs back, and their chunks are dropped."""
        while not chunk.dropped and not chunk.request.table.reserve(stream, n):
            self.preempt(self.running[-1])

    def preempt(self, request: Request) -> None:
        self.leave(request)
        request.done, request.depths = 0, []
        request.logprobs, request.greedy = [], []
        self.waiting.appendleft(request)
        self.preemptions += 1

    def leave(self, request: Request) -> None:
        """Out of work, its pages free."""
        if request.chunk is not None:
            request.chunk.dropped, request.chunk = True, None
        request.table.release()
        if request in self.running:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
