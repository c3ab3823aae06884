"""A run that is stopped and goes on, beside the same run undisturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.folder import RunFolder
from ledger.result import Result
from mor.config import Config
from mor.train.run import Hooks, Stopped, train_run
from tests.mor.train.test_run import final


def ends_with_the_same_bits(config: Config, folder: Path) -> tuple[Result, Result]:
    """Assert equal final weights; the results of the undisturbed and the interrupted run."""
    whole, parts = RunFolder(folder / "whole"), RunFolder(folder / "parts")
    train_run(config, whole, None, Hooks())
    looks = iter(range(100))
    with pytest.raises(Stopped):
        train_run(config, parts, None, Hooks(should_stop=lambda: next(looks) > 8))
    train_run(config, parts, None, Hooks())
    assert final(whole.path) == final(parts.path)
    one, two = whole.result(), parts.result()
    assert one is not None
    assert two is not None
    return one, two
