"""A recipe: settings of a run as power laws of its size and tokens, in a JSON file.

    {"schema": 1, "name": "mine", "source": "...", "params": "nonembedding",
     "laws": {"train.lr": {"c": 0.8, "a": 0.3, "b": 0.0}, "train.batch_size": {"c": 4096}},
     "models": {"mor": {"train.lr": {"c": 0.5, "a": 0.3}}}}

A law is `c N^-a D^-b`: N parameters (each weight once; `params` says whether the embedding
counts), D training tokens, a and b zero where they are left out. `laws` hold for every model that
`models` gives none of its own. The law of `train.batch_size` is in tokens per step. `fitted`
has the sizes and tokens that the laws were found at, as `{"params": [low, high], "tokens": ...}`,
`tuning` what a tune study knows of each model's optimum beside its law (`ledger.tuning`).
People may write the file; `python -m analysis tune` does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger.errors import UserError
from ledger.files import write_json
from ledger.tuning import ModelTuning

RECIPE_SCHEMA = 1
BATCH = "train.batch_size"  # its law is in tokens per step
PARAMS = ("nonembedding", "total")
KEYS = ("schema", "name", "source", "params", "laws", "models", "fitted", "tuning")


@dataclass(frozen=True)
class PowerLaw:
    """`c N^-a D^-b`."""

    c: float
    a: float = 0.0
    b: float = 0.0

    def at(self, params: float, tokens: float) -> float:
        """The setting at a size and a number of training tokens; inf where no number holds it."""
        log = math.log(self.c) - self.a * math.log(params) - self.b * math.log(tokens)
        return math.exp(log) if log < 700 else math.inf

    def __str__(self) -> str:
        parts = [f"{name}^{-power:.3g}" for name, power in (("N", self.a), ("D", self.b)) if power]
        return " ".join([f"{self.c:.4g}", *parts])

    def to_dict(self) -> dict[str, float]:
        return {"c": self.c, "a": self.a, "b": self.b}


Laws = Mapping[str, PowerLaw]  # by dotted setting


@dataclass(frozen=True)
class Recipe:
    """Laws of settings, for all models or for each."""

    name: str
    source: str = ""  # who found the laws, or which command
    params: str = "nonembedding"  # what N counts: nonembedding | total
    laws: Laws = field(default_factory=dict)
    models: Mapping[str, Laws] = field(default_factory=dict)
    fitted: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # params, tokens
    tuning: Mapping[str, ModelTuning] = field(default_factory=dict)  # by model

    def of(self, model: str) -> dict[str, PowerLaw]:
        """The laws that hold for a model, its own before those of all."""
        return {**self.laws, **self.models.get(model, {})}

    def outside(self, params: float, tokens: float) -> list[str]:
        """Which of params and tokens lies outside of what the laws were found at, by more than 1 %;
        nothing where that is not known."""
        given = {"params": params, "tokens": tokens}
        return [
            name
            for name, (low, high) in self.fitted.items()
            if not low / 1.01 <= given[name] <= high * 1.01
        ]

    def to_dict(self) -> dict[str, Any]:
        """As its file has it."""
        models = {name: _plain(laws) for name, laws in self.models.items()}
        tuning = {name: one.to_dict() for name, one in self.tuning.items()}
        return {
            **{"schema": RECIPE_SCHEMA, "name": self.name, "source": self.source},
            **{"params": self.params, "laws": _plain(self.laws), "models": models},
            **({"fitted": {k: list(v) for k, v in self.fitted.items()}} if self.fitted else {}),
            **({"tuning": tuning} if tuning else {}),
        }


def _plain(laws: Laws) -> dict[str, dict[str, float]]:
    return {setting: law.to_dict() for setting, law in laws.items()}


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe file, whole or not at all."""
    write_json(path, recipe.to_dict())


def read_recipe(path: Path) -> Recipe:
    """A recipe file. Raises UserError where it is missing or no recipe, with the key at fault."""
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict) or not {"laws", "models"} & values.keys():
        raise UserError(
            f'{path}: not a recipe; write {{"laws": {{"train.lr": {{"c": 3e-3, "a": 0, "b": 0}}}}}}'
        )
    for key in values.keys() - set(KEYS):
        raise UserError(f"{path}: {key} is not a key of a recipe; known: {', '.join(KEYS)}")
    if values.get("schema", RECIPE_SCHEMA) != RECIPE_SCHEMA:
        raise UserError(
            f"{path}: schema {values['schema']!r}, and this version reads {RECIPE_SCHEMA}"
        )
    params = values.get("params", "nonembedding")
    if params not in PARAMS:
        raise UserError(f"{path}: params is {params!r}; write one of {', '.join(PARAMS)}")
    models = _object(path, "models", values.get("models", {}))
    found = Recipe(
        str(values.get("name", path.stem)),
        str(values.get("source", "")),
        params,
        _laws(path, "laws", values.get("laws", {})),
        {name: _laws(path, f"models.{name}", laws) for name, laws in models.items()},
        _ranges(path, values.get("fitted", {})),
        _tuning(path, values.get("tuning", {})),
    )
    if not found.laws and not any(found.models.values()):
        raise UserError(f"{path}: holds no law; write one for train.lr or {BATCH}")
    return found


def _object(path: Path, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path}: {key} is {value!r}, expected an object")
    return value


def _laws(path: Path, key: str, values: Any) -> dict[str, PowerLaw]:
    laws = _object(path, key, values)
    return {setting: _law(path, f"{key}.{setting}", law) for setting, law in laws.items()}


def _ranges(path: Path, values: Any) -> dict[str, tuple[float, float]]:
    ranges = _object(path, "fitted", values)
    for key, ends in ranges.items():
        known = key in ("params", "tokens")
        if not known or not isinstance(ends, list) or len(ends) != 2 or not all(map(_real, ends)):
            raise UserError(
                f"{path}: fitted.{key} is {ends!r}; write params or tokens as [lowest, highest]"
            )
    return {key: (float(low), float(high)) for key, (low, high) in ranges.items()}


def _tuning(path: Path, values: Any) -> dict[str, ModelTuning]:
    found = {}
    for name, one in _object(path, "tuning", values).items():
        try:
            found[name] = ModelTuning.from_dict(one)
        except (KeyError, TypeError, ValueError, IndexError):
            raise UserError(
                f"{path}: tuning.{name} is not what python -m analysis tune wrote; run it again"
            ) from None
    return found


def _real(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _law(path: Path, key: str, values: Any) -> PowerLaw:
    law = _object(path, key, values)
    for name in law.keys() - {"c", "a", "b"}:
        raise UserError(f"{path}: {key}.{name} is not a key of a law c N^-a D^-b; known: c, a, b")
    numbers = {name: law.get(name, 0.0) for name in ("c", "a", "b")}
    for name, number in numbers.items():
        if not _real(number) or (name == "c" and number <= 0):
            wanted = "a number above 0" if name == "c" else "a number"
            raise UserError(f"{path}: {key}.{name} is {number!r}, expected {wanted}")
    return PowerLaw(**{name: float(number) for name, number in numbers.items()})
