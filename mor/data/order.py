"""The order in which a run reads the rows of its corpus: a function of the seed and the place.

Raw Philox words are sorted: NumPy keeps that stream for ever, `permutation` it may not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

KEPT = 2  # permutations, for a batch that straddles


def permutation(n: int, key: int, seed: int) -> Int64s:
    """0 to n - 1 in the order of (key, seed)."""
    words = np.random.Philox(key=np.array([seed % 2**64, key % 2**64], dtype=np.uint64)).random_raw(
        n
    )
    return np.argsort(words, kind="stable").astype(np.int64)


@dataclass
class Order:
    """An endless list of rows: epochs over `n_rows`, each in windows whose rows are shuffled.

    With `window` None an epoch is one window. Windows come in their order; the rows of window w in
    epoch e are shuffled by (seed, w, e), so what follows a window, however much, does not matter.
    `total` is False where more rows may be added: then there is no second epoch yet.
    """

    n_rows: int
    seed: int
    window: int | None = None  # rows
    total: bool = True
    _kept: dict[tuple[int, int], Int64s] = field(default_factory=dict)

    def epoch(self, position: int) -> int:
        return position // self.n_rows

    @property
    def end(self) -> int | None:
        """Positions that can be read so far: whole windows; None: any number."""
        if self.total:
            return None
        assert self.window is not None
        return self.n_rows // self.window * self.window

    def rows(self, start: int, stop: int) -> Int64s:
        """The rows at the positions `start` to `stop`."""
        parts = []
        while start < stop:
            epoch, inside = divmod(start, self.n_rows)
            size = self.window or self.n_rows
            window, at = divmod(inside, size)
            n = min(size, self.n_rows - window * size)
            part = self._permutation(epoch, window, n)[at : at + stop - start]
            parts.append(part + window * size)
            start += len(part)
        return np.concatenate(parts)

    def _permutation(self, epoch: int, window: int, n: int) -> Int64s:
        key = (epoch, window)
        if key not in self._kept:
            if len(self._kept) == KEPT:
                del self._kept[min(self._kept)]
            # an order without windows is keyed by the epoch, as it always was
            self._kept[key] = permutation(n, epoch + (window << 32), self.seed)
        return self._kept[key]
