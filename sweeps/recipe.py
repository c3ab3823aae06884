"""A run's recipe as numbers: `train.recipe`, `train.lr_factor` and `train.batch_factor` resolved.

It happens once, when a run is planned, before its id is made: a run with a recipe is the run whose
numbers were typed. N is the run's own parameters (a shared weight once), D its training tokens.

Numbers are such that people can type them: four digits, and a batch of 2^k or 3 x 2^k sequences,
which many numbers of GPUs and micro-batches divide and which is within 22 % of any batch of two
sequences or more.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledger.errors import UserError
from ledger.recipe import BATCH, Recipe, read_recipe
from mor.config import Config, ConfigError, replace_at
from mor.flops import run_cost
from mor.model.lookup import positive
from sweeps.recipes import LR, RECIPES

FACTORS = {LR: "lr_factor", BATCH: "batch_factor"}
DIGITS = 4  # of a setting that a law gives
NULL = ("train.muon_lr",)  # a number where it is set


def with_recipe(config: Config, given: Collection[str] = ()) -> Config:
    """The configuration with its recipe's laws and its factors as numbers.

    `given` are settings that the command line, an axis or a variant has set: these win over the
    laws. Raises ConfigError where the recipe has no law for this model, or one that gives no
    number.
    """
    train = config.train
    for name in FACTORS.values():
        positive(f"train.{name}", getattr(train, name))
    if train.recipe is not None:
        recipe = recipe_of(train.recipe)
        config = _by_law(config, recipe, given)
        if train.recipe not in RECIPES:
            config = replace_at(config, "train.recipe", str(_path(train.recipe)))
    if train.lr_factor != 1:
        config = replace_at(config, LR, rounded(config.train.lr * train.lr_factor))
    if train.batch_factor != 1:
        scaled = config.train.batch_size * train.batch_factor
        whole = int(scaled) if scaled == int(scaled) else whole_batch(scaled)
        config = replace_at(config, BATCH, whole)
    return replace(config, train=replace(config.train, lr_factor=1.0, batch_factor=1.0))


def recipe_of(name: str) -> Recipe:
    """A built-in recipe by its name, or one in a file. Raises ConfigError."""
    if name in RECIPES:
        return RECIPES[name]
    path = _path(name)
    if not path.is_file():
        raise ConfigError(
            "train.recipe", name, "no such file, nor a built-in recipe",
            "built in: " + ", ".join(RECIPES),
        )  # fmt: skip
    return _read(path)


def _path(name: str) -> Path:
    return Path(name).expanduser().absolute()


@functools.cache
def _read(path: Path) -> Recipe:
    try:
        return read_recipe(path)
    except UserError as error:
        raise ConfigError(
            "train.recipe",
            path,
            str(error).removeprefix(f"{path}: "),
            "correct it or write it again",
        ) from None


def place(config: Config, recipe: Recipe) -> tuple[float, float]:
    """N as the recipe counts it, and D: the training tokens of the run's budget."""
    cost = run_cost(replace(config, train=replace(config.train, batch_size=1)))
    size = cost.params.total if recipe.params == "total" else cost.params.nonembedding
    if config.tokens is not None:
        return size, config.tokens
    return size, config.budget / cost.step_flops[config.flops.convention] * cost.tokens_per_step


def _by_law(config: Config, recipe: Recipe, given: Collection[str]) -> Config:
    laws, name = recipe.of(config.model.name), config.train.recipe
    if not laws:
        raise ConfigError(
            "train.recipe", name, f"has no law for model={config.model.name}",
            f"it has laws for {', '.join(recipe.models)}",
        )  # fmt: skip
    positive("budget", config.budget)
    size, tokens = place(config, recipe)
    used = {setting: law for setting, law in laws.items() if setting not in given}
    if not used:
        raise ConfigError(
            "train.recipe", name, f"its {' and '.join(laws)} typed or swept as well, so it "
            "does nothing", "leave one of them out",
        )  # fmt: skip
    for setting, law in used.items():
        _refuse_no_scale(config, setting)
        value = law.at(size, tokens)
        if setting == BATCH:
            value /= config.train.seq_len
        if not 1e-300 < value < 1e15:
            raise ConfigError(
                "train.recipe", name, f"gives {setting}={value:.3g} at N={size:.3g}, "
                f"D={tokens:.3g}", f"type {setting}=<number>, which wins over the recipe",
            )  # fmt: skip
        number = whole_batch(value) if setting == BATCH else rounded(value)
        config = replace_at(config, setting, number)
    return config


def _refuse_no_scale(config: Config, setting: str) -> None:
    """Only what is a real number can follow a power law; what N and D are made of cannot."""
    node: Any = config
    for key in setting.split("."):
        node = getattr(node, key, None)
    real = isinstance(node, float) or setting in (BATCH, *NULL)
    of_a_run = setting.startswith(("train.", "model."))
    if not real or not of_a_run or setting.removeprefix("train.") in FACTORS.values():
        raise ConfigError(
            "train.recipe", config.train.recipe, f"has a law for {setting}",
            f"a law gives {LR}, {BATCH} or another real number below train. or model.",
        )  # fmt: skip


def rounded(value: float) -> float:
    """To as many digits as people type."""
    return float(f"{value:.{DIGITS}g}")


def whole_batch(sequences: float) -> int:
    """The nearest 2^k or 3 x 2^k in ratio, 1 at least."""
    power = 2 ** max(0, math.floor(math.log2(max(1.0, sequences))))
    choices = {power, max(1, 3 * power // 2), 2 * power}
    return min(choices, key=lambda n: abs(math.log(n / max(1.0, sequences))))


def recipe_lines(configs: Iterable[Config]) -> list[str]:
    """What a plan says of the recipes of its runs: their laws, what was rounded, what lies outside
    of what they were fitted on."""
    by_recipe: dict[str, list[Config]] = {}
    for config in configs:
        if config.train.recipe is not None:
            by_recipe.setdefault(config.train.recipe, []).append(config)
    return [line for name, runs in by_recipe.items() for line in _lines(name, runs)]


def _lines(name: str, runs: list[Config]) -> list[str]:
    try:
        recipe = recipe_of(name)
    except ConfigError:  # a saved plan outlives the file; its numbers stand in the table
        return [f"recipe {name}: its file cannot be read any more"]
    said = [f"recipe {name}: {recipe.source}" if recipe.source else f"recipe {name}"]
    models = dict.fromkeys(config.model.name for config in runs)
    told: dict[str, list[str]] = {}
    for model in models:
        laws = recipe.of(model)
        texts = [f"{s} = {law}" + (" tokens" if s == BATCH else "") for s, law in laws.items()]
        told.setdefault(", ".join(texts), []).append(model)
    said += [f"  {', '.join(names)}: {text}" for text, names in told.items()]
    if any(law.b for model in models for law in recipe.of(model).values()):
        said.append("  it depends on the training tokens: budgets of one size share no trunk")
    if any(BATCH in recipe.of(model) for model in models):
        said.append("  batches are rounded to 2^k or 3 x 2^k sequences, rates to four digits")
    outside = [config for config in runs if recipe.outside(*place(config, recipe))]
    if outside:
        ends = ", ".join(
            f"{key} {low:.3g} to {high:.3g}" for key, (low, high) in recipe.fitted.items()
        )
        said.append(
            f"  {len(outside)} of {len(runs)} runs lie outside of what it was fitted on: {ends}"
        )
    return said
