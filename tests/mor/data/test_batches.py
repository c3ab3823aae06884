import itertools
from pathlib import Path

import numpy as np
import pytest

from ledger.errors import UserError
from mor.data.batches import Batches
from mor.data.packed import Corpus, Meta

SEQ_LEN = 8
N_ROWS = 10


@pytest.fixture
def corpus() -> Corpus:
    train = np.arange(N_ROWS * SEQ_LEN + 1, dtype=np.uint16)
    val = np.arange(1000, 1000 + 5 * SEQ_LEN + 3, dtype=np.uint16)
    meta = Meta("0" * 16, "bytes", 2000, 255, "uint16", len(train), len(val), 1, 1, len(val))
    return Corpus(Path("mine-0"), meta, train, val)


def test_rows_cover_an_epoch_exactly_once(corpus: Corpus) -> None:
    batches = Batches(corpus, SEQ_LEN, batch_size=4, seed=0)
    assert batches.n_rows == N_ROWS
    rows = np.concatenate([batches.rows(step) for step in range(10)])  # four epochs
    epochs = rows.reshape(4, N_ROWS)
    assert all(sorted(epoch) == list(range(N_ROWS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4, "each epoch has its own order"
    assert [batches.epoch(step) for step in (0, 2, 3, 5)] == [0, 0, 1, 2]


def test_a_batch_longer_than_an_epoch(corpus: Corpus) -> None:
    batches = Batches(corpus, SEQ_LEN, batch_size=25, seed=0)
    small = Batches(corpus, SEQ_LEN, batch_size=5, seed=0)
    together = np.concatenate([small.rows(step) for step in range(5, 10)])
    assert np.array_equal(batches.rows(1), together)


def test_rows_hang_on_seed_and_step_only(corpus: Corpus) -> None:
    onwards = Batches(corpus, SEQ_LEN, batch_size=4, seed=3)
    before = [onwards.rows(step) for step in range(12)]
    for step in (11, 0, 7, 2):  # a restart, in any order
        fresh = Batches(corpus, SEQ_LEN, batch_size=4, seed=3)
        assert np.array_equal(fresh.rows(step), before[step])
        assert np.array_equal(onwards.rows(step), before[step])
    other = Batches(corpus, SEQ_LEN, batch_size=4, seed=4)
    assert any(not np.array_equal(other.rows(step), before[step]) for step in range(3))


def test_the_order_is_for_ever(corpus: Corpus) -> None:
    batches = Batches(corpus, SEQ_LEN, batch_size=N_ROWS, seed=0)
    assert batches.rows(0).tolist() == ORDER_OF_SEED_0
    assert Batches(corpus, SEQ_LEN, N_ROWS, seed=-1).rows(0).tolist() != ORDER_OF_SEED_0


ORDER_OF_SEED_0 = [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]


def test_targets_follow_tokens(corpus: Corpus) -> None:
    batches = Batches(corpus, SEQ_LEN, batch_size=4, seed=0)
    tokens, targets = batches.batch(1)
    assert tokens.shape == targets.shape == (4, SEQ_LEN)
    assert tokens.dtype == targets.dtype == np.int64
    assert tokens.flags.c_contiguous
    assert targets.flags.c_contiguous
    assert np.array_equal(targets, tokens + 1)
    assert np.array_equal(tokens[:, 0], batches.rows(1) * SEQ_LEN)


@pytest.mark.parametrize("n_parts", [1, 2, 3, 4])
def test_parts_make_up_the_batch(corpus: Corpus, n_parts: int) -> None:
    batches = Batches(corpus, SEQ_LEN, batch_size=4, seed=0)
    whole = batches.batch(5)
    bounds = np.linspace(0, 4, n_parts + 1).astype(int)
    parts = [batches.batch(5, slice(a, b)) for a, b in itertools.pairwise(bounds)]
    for side in (0, 1):
        assert np.array_equal(np.concatenate([part[side] for part in parts]), whole[side])


def test_validation_reads_the_same_first_rows(corpus: Corpus) -> None:
    batches = Batches(corpus, SEQ_LEN, batch_size=2, seed=0)
    found = list(batches.validation(3 * SEQ_LEN))
    assert [len(tokens) for tokens, _ in found] == [2, 1]
    assert found[0][0][0, 0] == 1000
    one_by_one = Batches(corpus, SEQ_LEN, batch_size=4, seed=9).validation(3 * SEQ_LEN, 1)
    assert np.array_equal(
        np.concatenate([tokens for tokens, _ in found]),
        np.concatenate([tokens for tokens, _ in one_by_one]),
    )
    assert sum(len(tokens) for tokens, _ in batches.validation(10**9)) == 5
    assert sum(len(tokens) for tokens, _ in batches.validation(SEQ_LEN + 1)) == 2


def test_too_short_for_one_row(corpus: Corpus) -> None:
    words = r"train.seq_len=100: the train tokens of mine-0 are 81.*type train.seq_len=80 or less"
    with pytest.raises(UserError, match=words):
        Batches(corpus, 100, batch_size=4, seed=0)
    with pytest.raises(UserError, match=r"the val tokens .*data.val_fraction"):
        Batches(corpus, 60, batch_size=4, seed=0)
