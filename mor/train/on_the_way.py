"""Validation while a run trains: the points of its learning curve.

Whether a step is validated depends on its number alone, so a run that is killed and started again
has the same points as one that was not. Validation draws nothing from training's random numbers
and moves no weight: with or without it a run ends with the same bits. The end of a run is not a
point on the way: it gets the whole validation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mor.evaluate.validation import FinalValidation, Observer, validation_on_the_way
from mor.train.trainer import Trainer


class Interrupted(Exception):
    """The run was asked to stop while it was validated: that point is outstanding."""


def validated(
    trainer: Trainer, beat: Callable[[], None], should_stop: Callable[[], bool]
) -> FinalValidation | None:
    """Validate the state of `trainer`; all ranks call it together, rank 0 has the figures.

    `beat` is called between batches. Raises Interrupted, and what `beat` raises, on rank 0.
    """
    model = trainer.spread.whole()
    if not trainer.ranks.first:
        return None
    train = trainer.config.train

    def watch(*_: Any) -> None:
        if should_stop():
            raise Interrupted
        beat()

    observer: Observer = watch
    n_tokens = train.eval_tokens or train.val_tokens
    return validation_on_the_way(model, trainer.batches, n_tokens, trainer.precision(), observer)
