"""Batches: which rows of the packed tokens a step reads.

Row i is tokens[i*S : i*S + S + 1], its last token being the first one of row i + 1: S inputs and
the S targets after them. Step k takes the positions k*B to (k+1)*B of an endless list
(`mor.data.order`): epochs over all rows, each keyed by (seed, epoch); rows of shards are shuffled
inside windows. Nothing else enters: not the world size, the micro-batch, a restart or how much is
prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mor.config import UserError
from mor.data.order import Int64s, Order
from mor.data.packed import Corpus, Tokens

WHOLE = slice(None)


class Batches:
    """The training batches of a run and the rows that it is validated on."""

    def __init__(
        self,
        corpus: Corpus,
        seq_len: int,
        batch_size: int,
        seed: int,
        more: Callable[[int], Corpus] | None = None,
    ) -> None:
        """`more` prepares the corpus up to so many rows, for a run that reads on.

        Raises UserError if a split has not a single row of `seq_len` tokens and one more.
        """
        self.seq_len, self.batch_size = seq_len, batch_size
        self._seed, self._more = seed, more
        self._take(corpus)

    def _take(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.n_rows = _count_rows(corpus, "train", self.seq_len)
        self.n_val_rows = _count_rows(corpus, "val", self.seq_len)
        window = corpus.window_tokens and corpus.window_tokens // self.seq_len
        self.order = Order(self.n_rows, self._seed, window, corpus.complete)

    def epoch(self, step: int) -> int:
        """The epoch of the first row that `step` reads."""
        return self.order.epoch(step * self.batch_size)

    def rows(self, step: int) -> Int64s:
        """The row indices (B,) that `step` reads; a batch may straddle epochs.

        Raises UserError where they are not prepared and cannot be.
        """
        start, stop = step * self.batch_size, (step + 1) * self.batch_size
        if self._beyond(stop) and self._more:
            self._take(self._more(stop))
        if self._beyond(stop):
            raise UserError(
                f"data.tokens={self.corpus.meta.train_tokens}: step {step + 1} reads beyond what "
                f"is prepared of {self.corpus.folder.name}; prepare "
                f"data.tokens={stop * self.seq_len} or more"
            )
        return self.order.rows(start, stop)

    def has(self, step: int) -> bool:
        """Whether the rows of a step are prepared."""
        return not self._beyond((step + 1) * self.batch_size)

    def _beyond(self, stop: int) -> bool:
        return self.order.end is not None and stop > self.order.end

    def batch(self, step: int, part: slice = WHOLE) -> tuple[Int64s, Int64s]:
        """Tokens and targets, both (b, S), of the sequences that `part` selects from the batch."""
        rows = self.rows(step)[part]  # may take up more of the corpus
        return _read(self.corpus.train, rows, self.seq_len)

    def validation(
        self, n_tokens: int, batch_size: int | None = None
    ) -> Iterator[tuple[Int64s, Int64s]]:
        """Tokens and targets (b, S) of the first rows held out: `n_tokens` of them, rounded up to
        a row, or all there are. `batch_size` says how many rows come at once.
        """
        n_rows = min(self.n_val_rows, max(1, -(-n_tokens // self.seq_len)))
        size = batch_size or self.batch_size
        for start in range(0, n_rows, size):
            rows = np.arange(start, min(start + size, n_rows))
            yield _read(self.corpus.val, rows, self.seq_len)


def _read(tokens: Tokens, rows: Int64s, seq_len: int) -> tuple[Int64s, Int64s]:
    block = np.empty((len(rows), seq_len + 1), dtype=np.int64)
    for i, row in enumerate(rows):
        block[i] = tokens[row * seq_len : row * seq_len + seq_len + 1]
    return np.ascontiguousarray(block[:, :-1]), np.ascontiguousarray(block[:, 1:])


def _count_rows(corpus: Corpus, split: str, seq_len: int) -> int:
    n_tokens = len(corpus.train if split == "train" else corpus.val)
    n_rows = (n_tokens - 1) // seq_len
    if n_rows < 1:
        longer = "data.paths=[...] with more text"
        if split == "val":
            longer = f"a larger data.val_fraction or {longer}"
        raise UserError(
            f"train.seq_len={seq_len}: the {split} tokens of {corpus.folder.name} are {n_tokens}, "
            f"too few for one row of {seq_len + 1}; type train.seq_len={max(n_tokens - 1, 1)} or "
            f"less, or {longer}"
        )
    return n_rows
