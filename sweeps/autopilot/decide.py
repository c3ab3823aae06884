"""What an autopilot decides: whether a study is known well enough, and which runs come next."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ledger.autopilot import LAUNCH, MET, REFUSED, SPENT, STOP, Known
from ledger.errors import UserError
from mor.config import Config, ConfigError

QUANTITIES = ("a", "b")  # exponents of the optimal size and tokens: N_opt ~ C^a, D_opt ~ C^b


@dataclass(frozen=True)
class Until:
    """What is to be known: each model's exponent to a half width (95 %)."""

    quantity: str
    half_width: float


@dataclass(frozen=True)
class Candidate:
    """A run that is suggested."""

    model: str
    size: str
    budget: float
    hours: float  # from scratch
    after: float  # half width that is expected with it and those before it
    seed: int = 0


@dataclass(frozen=True)
class Decision:
    """What follows from a look."""

    action: str
    reason: str
    runs: tuple[Candidate, ...] = ()


def parse_until(text: str) -> Until:
    """`a +- 0.02`. Raises ConfigError."""
    found = re.fullmatch(r"\s*(\w+)\s*(?:\+-|\+/-|±)\s*([0-9.eE+-]+)\s*", text)
    try:
        quantity, width = (found[1], float(found[2])) if found else ("", math.nan)
    except ValueError:
        quantity, width = "", math.nan
    if quantity not in QUANTITIES or not 0 < width < math.inf:
        raise ConfigError(
            "--until", text, "not an exponent with a half width", "type --until 'a +- 0.02'"
        )
    return Until(quantity, width)


def decide(
    known: Iterable[Known], candidates: Iterable[Candidate], until: Until, left_hours: float
) -> Decision:
    """Stop where every model is known well enough; else run what is suggested for the others, as
    far as the hours reach."""
    short = [one for one in known if not met(one, until)]
    if not short:
        return Decision(STOP, MET)
    wanted = [one for one in candidates if one.model in {k.model for k in short}]
    if not wanted:
        return Decision(STOP, REFUSED)
    taken: list[Candidate] = []
    for one in wanted:
        if sum(c.hours for c in taken) + one.hours <= left_hours:
            taken.append(one)
    return Decision(LAUNCH, "", tuple(taken)) if taken else Decision(STOP, SPENT)


def met(known: Known, until: Until) -> bool:
    """Whether a model's exponent is known well enough."""
    return known.half_width is not None and known.half_width <= until.half_width


class Points:
    """The points of a study's plan: a configuration of each, and the seeds that it has used."""

    def __init__(self, configs: Iterable[Config]) -> None:
        self._example: dict[tuple[str, str, float], Config] = {}
        self._last: dict[tuple[str, str, float], int] = {}
        for config in configs:
            point = (config.curve, config.size.name, config.budget)
            self._example.setdefault(point, config)
            self._last[point] = max(config.seed, self._last.get(point, config.seed))

    def next_seed(self, model: str, size: str, budget: float) -> int:
        """A seed that no run of the point has; another one each time."""
        self._check(model, size, budget)
        self._last[model, size, budget] += 1
        return self._last[model, size, budget]

    def run(self, model: str, size: str, budget: float, seed: int) -> Config:
        """A run of the point. Raises UserError where the plan has none."""
        self._check(model, size, budget)
        return dataclasses.replace(self._example[model, size, budget], seed=seed)

    def _check(self, model: str, size: str, budget: float) -> None:
        if (model, size, budget) not in self._example:
            raise UserError(
                f"autopilot: {model} of size {size} at {budget:g} is not in the study's plan; "
                "python -m analysis suggest names such runs, to be launched by hand"
            )
