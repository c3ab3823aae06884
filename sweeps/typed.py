"""The settings of sweep.py that take a text, and the command line with such texts in quotes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from mor.config import Config
from mor.model.components import RECURRENCES, ROUTERS
from mor.model.recurrence.spec import RecurrenceSpec
from mor.model.routers.spec import RouterSpec
from mor.typed import Texts
from sweeps.config import SweepConfig, arms, settings_of

FLAGS = "launch.slurm.sbatch."  # any flag of sbatch, as text


def as_typed(arguments: list[str]) -> list[str]:
    """The command line with quotes around texts that Hydra would read as something else."""
    return Texts(text_settings(), FLAGS).as_typed(arguments)


def quoted_form(argument: str) -> str | None:
    """What to type in a shell where Hydra cannot read a text; None where no text is expected."""
    return Texts(text_settings(), FLAGS).quoted_form(argument)


@cache
def text_settings() -> dict[str, bool]:
    """Each setting that takes a text or a list of texts, by its dotted name: whether null unsets
    it."""
    found = dict(_texts(Config)) | dict(_texts(SweepConfig))
    specs: list[RecurrenceSpec | RouterSpec] = [*RECURRENCES.values(), *ROUTERS.values()]
    for spec in specs:
        if spec.options is not None:
            found |= dict(_texts(spec.options, "model."))
    return found


def _texts(cls: Any, path: str = "") -> Iterator[tuple[str, bool]]:
    for name, hint in settings_of(cls, path):
        allowed = arms(hint)
        if allowed in ([str], [tuple[str, ...]]):
            yield name, hint is not allowed[0]
