"""A core block looped with input injection: what planning knows of it. No torch.

A prelude (the first, unshared layer) gives e; the core block is applied R times to a state s, and
from the second loop on e is injected into what it reads (`model.injection`); a coda (the last,
unshared layer) follows. The family of Huginn (arXiv 2502.05171) and Parcae. R is
`model.n_recursions`, or drawn for each training step with that mean (Poisson-lognormal); the draw
depends on the seed and the step only. Gradients flow through the last
`model.backprop_recursions` loops.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from mor.config import ConfigError, ModelConfig, SizeConfig
from mor.model.kv.spec import mode_of
from mor.model.layout import Layout
from mor.model.lookup import one_of
from mor.model.recurrence.spec import RecurrenceSpec
from mor.model.relaxation.spec import RELAXATIONS, relaxation_of
from mor.model.sharing import PATTERNS, pattern_of

SIGMA = 0.5  # of the normal variable below the Poisson one (Huginn, sec. 3.3)
MOST = 4  # draws above this multiple of the mean are cut to it
GRID = 64  # points of the quadrature over the normal variable


@dataclass(frozen=True)
class LoopedOptions:
    """Settings below `model.` that looped models alone have."""

    injection: str = "add"  # add: s + e | concat: W [s; e] | gate: a s + (1 - a) e, a per channel
    loops: str = "fixed"  # fixed: always n_recursions | poisson: drawn per step around it
    backprop_recursions: int | None = None  # loops with gradients, from the last; null: all


@dataclass(frozen=True)
class Injection:
    """What injecting costs, for a width d."""

    params: int = 0  # in units of d
    square_params: int = 0  # in units of d^2, each a FLOP pair per token


INJECTIONS = {"add": Injection(), "concat": Injection(square_params=2), "gate": Injection(1)}
LOOPS = ("fixed", "poisson")


@dataclass(frozen=True)
class LoopedSpec(RecurrenceSpec):
    """`model.architecture=looped`."""

    options: ClassVar[type] = LoopedOptions

    def check(self, model: ModelConfig, size: SizeConfig) -> None:
        super().check(model, size)
        options = of(model)
        one_of("model.injection", options.injection, INJECTIONS)
        one_of("model.loops", options.loops, LOOPS)
        if not pattern_of(model).aligned:
            known = ", ".join(name for name, pattern in PATTERNS.items() if pattern.aligned)
            raise ConfigError(
                "model.sharing",
                model.sharing,
                "a looped model applies the same block in every loop",
                f"choose one of {known}",
            )
        kept = options.backprop_recursions
        if kept is not None and not 1 <= kept <= self.most(model):
            raise ConfigError(
                "model.backprop_recursions",
                kept,
                f"gradients flow through 1 to {self.most(model)} loops",
                f"type model.backprop_recursions={min(4, model.n_recursions)} or null",
            )
        if kept is not None and mode_of(model).reads_first:
            raise ConfigError(
                "model.kv",
                model.kv,
                "the keys and values of the first loop would get no gradient under "
                f"model.backprop_recursions={kept}",
                "choose model.kv=recursion or model.backprop_recursions=null",
            )
        if relaxation_of(model) is not RELAXATIONS["none"]:
            raise ConfigError(
                "model.relaxation.type",
                model.relaxation.type,
                "a looped model has no per-recursion parameters: it may loop more often at "
                "inference than in training",
                "type model.relaxation.type=none or choose model=recursive",
            )

    def most(self, model: ModelConfig) -> int:
        """The largest number of loops that a training step takes."""
        return model.n_recursions * (MOST if of(model).loops == "poisson" else 1)

    def loops(self, model: ModelConfig, layout: Layout) -> int:
        return self.most(model)

    def inactive(self, model: ModelConfig, size: SizeConfig) -> tuple[str, ...]:
        kept = of(model).backprop_recursions
        all_of_them = kept is not None and kept >= self.most(model)
        unused = ("backprop_recursions",) if all_of_them else ()
        return (*super().inactive(model, size), *unused)

    def depends_on_step(self, model: ModelConfig) -> bool:
        return of(model).loops == "poisson"

    def loops_at(self, model: ModelConfig, seed: int, step: int | None) -> int:
        """Loops of a training step; the mean number where there is no step."""
        if step is None or of(model).loops == "fixed":
            return model.n_recursions
        return draw(model.n_recursions, random.Random(f"{seed}/{step}"))

    def share_of_steps(self, model: ModelConfig, r: int) -> float:
        if of(model).loops == "fixed":
            return 1.0 if r < model.n_recursions else 0.0
        return sum(distribution(model.n_recursions)[r:])

    def share_without_gradient(self, model: ModelConfig, r: int) -> float:
        kept = of(model).backprop_recursions
        return 0.0 if kept is None else self.share_of_steps(model, r + kept)

    def params(self, model: ModelConfig, size: SizeConfig) -> int:
        injection = INJECTIONS[of(model).injection]
        return injection.params * size.d_model + injection.square_params * size.d_model**2

    def token_flops(self, model: ModelConfig, size: SizeConfig, r: int) -> int:
        square = INJECTIONS[of(model).injection].square_params
        return 2 * square * size.d_model**2 if r else 0  # nothing is injected into the first loop

    def token_params(self, model: ModelConfig, size: SizeConfig, r: int) -> int:
        return self.params(model, size) if r else 0

    def validated_depths(self, model: ModelConfig) -> tuple[int, ...]:
        return tuple(range(1, 2 * model.n_recursions + 1))


def of(model: ModelConfig) -> LoopedOptions:
    """The settings of a looped model."""
    options: Any = model.options
    return options if isinstance(options, LoopedOptions) else LoopedOptions()


def draw(mean: int, generator: random.Random) -> int:
    """1 + Poisson(exp(normal)), the Poisson part of mean `mean - 1`; at most MOST x mean."""
    if mean == 1:
        return 1
    rate = math.exp(generator.gauss(math.log(mean - 1) - SIGMA**2 / 2, SIGMA))
    below, count, most = math.exp(-rate), 0, MOST * mean - 1
    product = generator.random()
    while product > below and count < most:
        product *= generator.random()
        count += 1
    return 1 + count


@lru_cache(maxsize=64)
def distribution(mean: int) -> tuple[float, ...]:
    """Probability of 1, 2, ... MOST x mean loops; the last one holds all that would lie above."""
    if mean == 1:
        return (1.0,) + (0.0,) * (MOST - 1)
    nodes = [-6 + 12 * (i + 0.5) / GRID for i in range(GRID)]  # of the standard normal
    weights = [math.exp(-z * z / 2) for z in nodes]
    total = sum(weights)
    rates = [math.exp(math.log(mean - 1) - SIGMA**2 / 2 + SIGMA * z) for z in nodes]
    found = [
        sum(
            w / total * math.exp(k * math.log(rate) - rate - math.lgamma(k + 1))
            for w, rate in zip(weights, rates, strict=True)
        )
        for k in range(MOST * mean - 1)
    ]
    return (*found, max(0.0, 1.0 - sum(found)))


LOOPED = LoopedSpec("looped", ties=True, module="mor.model.recurrence.looped:Looped")
