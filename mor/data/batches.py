"""Batches: which rows of the packed tokens a step reads.

Row i is tokens[i*S : i*S + S + 1], its last token being the first one of row i + 1: S inputs and
the S targets after them. Step k takes the positions k*B to (k+1)*B of an endless list: one
permutation of all rows after another, each keyed by (seed, epoch). Nothing else enters: not the
world size, the micro-batch or a restart.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mor.config import UserError
from mor.data.packed import Corpus

Int64s = npt.NDArray[np.int64]
WHOLE = slice(None)


class Batches:
    """The training batches of a run and the rows that it is validated on."""

    def __init__(self, corpus: Corpus, seq_len: int, batch_size: int, seed: int) -> None:
        """Raises UserError if a split has not a single row of `seq_len` tokens and one more."""
        self.corpus = corpus
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.seed = seed
        self.n_rows = _count_rows(corpus, "train", seq_len)
        self.n_val_rows = _count_rows(corpus, "val", seq_len)
        self._orders: dict[int, Int64s] = {}  # epoch -> permutation; two, for a step that straddles

    def epoch(self, step: int) -> int:
        """The epoch of the first row that `step` reads."""
        return step * self.batch_size // self.n_rows

    def rows(self, step: int) -> Int64s:
        """The row indices (B,) that `step` reads; a batch may straddle epochs."""
        start, stop = step * self.batch_size, (step + 1) * self.batch_size
        parts = []
        for epoch in range(start // self.n_rows, (stop - 1) // self.n_rows + 1):
            first = epoch * self.n_rows
            parts.append(self._permutation(epoch)[max(start - first, 0) : stop - first])
        return np.concatenate(parts)

    def batch(self, step: int, part: slice = WHOLE) -> tuple[Int64s, Int64s]:
        """Tokens and targets, both (b, S), of the sequences that `part` selects from the batch."""
        return _read(self.corpus.train, self.rows(step)[part], self.seq_len)

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

    def _permutation(self, epoch: int) -> Int64s:
        if epoch not in self._orders:
            # Sorting raw Philox words: NumPy keeps that stream for ever, `permutation` it may not.
            key = np.array([self.seed % 2**64, epoch], dtype=np.uint64)
            words = np.random.Philox(key=key).random_raw(self.n_rows)
            if len(self._orders) == 2:
                del self._orders[min(self._orders)]
            self._orders[epoch] = np.argsort(words, kind="stable").astype(np.int64)
        return self._orders[epoch]


def _read(
    tokens: npt.NDArray[np.unsignedinteger], rows: Int64s, seq_len: int
) -> tuple[Int64s, Int64s]:
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
