"""Rows read ahead: the same ones, whatever step is asked for; none that are not prepared."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mor.config import UserError
from mor.data.ahead import Ahead
from mor.data.batches import Batches
from mor.data.packed import Corpus
from mor.data.prepare import prepare


@pytest.fixture
def corpus(toy_run) -> Corpus:
    return prepare(toy_run().data)


def test_rows_are_those_of_the_batches(corpus):
    batches, part = Batches(corpus, 32, 4, seed=3), slice(1, 3)
    ahead = Ahead(Batches(corpus, 32, 4, seed=3), part)
    for step in (0, 1, 1, 2, 7, 8, 3, 0):  # again after memory ran out, back after a restart
        for mine, theirs in zip(ahead.batch(step), batches.batch(step, part), strict=True):
            assert torch.equal(mine, torch.from_numpy(theirs))


def test_the_next_step_is_read_by_another_thread(corpus):
    batches = Batches(corpus, 32, 4, seed=0)
    read: list[tuple[int, str]] = []
    plain = batches.batch

    def noted(step: int, *rest: Any) -> Any:
        read.append((step, threading.current_thread().name))
        return plain(step, *rest)

    batches.batch = noted  # type: ignore[method-assign]
    ahead = Ahead(batches)
    for step in range(3):
        ahead.batch(step)
    assert ahead._next is not None
    ahead._next[1].result()
    main = threading.current_thread().name
    assert [step for step, _ in read] == [0, 1, 2, 3]
    assert [name == main for _, name in read] == [True, False, False, False]


class Torn:
    def __init__(self, tokens: Any) -> None:
        self.tokens, self.whole = tokens, True

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, part: slice) -> np.ndarray:
        if not self.whole:
            raise UserError("a shard is damaged")
        return self.tokens[part]


def test_what_reading_raises_is_raised_where_the_rows_are_asked_for(corpus):
    torn = Torn(corpus.train)
    ahead = Ahead(Batches(replace(corpus, train=torn), 32, 4, seed=0))
    ahead.batch(0)
    assert ahead._next is not None
    ahead._next[1].result()
    torn.whole = False
    ahead.batch(1)  # read before
    with pytest.raises(UserError):
        ahead.batch(2)


def test_rows_that_are_not_prepared_are_not_read_ahead(corpus):
    part = replace(corpus, window_tokens=32 * 8, complete=False)
    asked: list[int] = []

    def more(rows: int) -> Corpus:
        asked.append(rows)
        return replace(part, train=corpus.train[: 32 * 32 + 1])

    batches = Batches(replace(part, train=corpus.train[: 32 * 16 + 1]), 32, 4, 0, more)
    ahead = Ahead(batches)
    for step in range(4):
        ahead.batch(step)
    assert not asked  # step 4 is for the run to ask for
    assert ahead._next is None
    ahead.batch(4)
    assert asked == [20]
