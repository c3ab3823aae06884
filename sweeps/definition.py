"""What a study is: its axes, its variants, and what stands for its sizes and budgets at a scale.

`axes` are multiplied with each other; `variants` are a list (each changes a few settings of its
own), multiplied with the axes. `scale` (conf/scale) turns the runs of any study into smaller ones:
the depths stay, so that every sharing keeps its layers, while widths and budgets shrink.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from mor.config import (
    Config,
    ConfigError,
    did_you_mean,
    from_dict,
    group_of,
    needed,
    replace_at,
    text_of,
)
from mor.evaluate.task_sets import PRESETS, task_set
from mor.flops import run_cost
from mor.model.lookup import positive
from mor.validate import check_settings, validate
from sweeps.recipe import with_recipe

Settings = dict[str, Any]  # dotted names and values
LONGEST_NAME = 200  # of a study; file systems take 255 bytes


@dataclass(frozen=True)
class ScaleConfig:
    """What a scale makes of the sizes that it knows; other runs stay as they are."""

    name: str | None = None  # appended to the study's name; null: full scale
    budget: float = 1.0  # factor of every budget
    tokens: float = 1.0  # factor of every number of tokens
    sizes: dict[str, Settings] = field(default_factory=dict)  # by size.name: fields that change

    def apply(self, config: Config) -> Config:
        """The run at this scale. Raises ConfigError."""
        if config.size.name not in self.sizes:
            return config
        tokens = None if config.tokens is None else config.tokens * self.tokens
        fields = self.sizes[config.size.name]
        config = replace(config, budget=config.budget * self.budget, tokens=tokens)
        return set_all(config, {f"size.{name}": value for name, value in fields.items()})


@dataclass(frozen=True)
class StudyConfig:
    """A name, the axes and variants that -m fans out, and the scale of its runs."""

    name: str
    axes: dict[str, list[Any]] = field(default_factory=dict)
    variants: dict[str, Settings] = field(default_factory=dict)
    only: tuple[str, ...] | None = None  # names of variants to run; null: all
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    evaluate: tuple[str, ...] = ()  # task sets that each run is scored on when it is done

    def chosen(self) -> dict[str, Settings]:
        """The variants to run by their names; a study without any has one without a name."""
        if self.only is None:
            return self.variants or {"": {}}
        return {name: self.variants[name] for name in self.only}


def study_config(values: dict[str, Any]) -> StudyConfig:
    """A study's part of a composed configuration, checked. Raises ConfigError."""
    known = {f.name for f in dataclasses.fields(StudyConfig)}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(
                f"study.{key}", value, "no such setting", did_you_mean(key, known, "study.")
            )
    scale = dict(group_of("study.scale", values.get("scale") or {}))
    sizes = _settings_of("study.scale.sizes", scale.pop("sizes", None))
    scaled = replace(from_dict(ScaleConfig, scale, "study.scale."), sizes=sizes)
    positive("study.scale.budget", scaled.budget)
    positive("study.scale.tokens", scaled.tokens)
    name = text_of("study.name", needed(values, "name", "study."))
    for setting, word in (("study.name", name), ("study.scale.name", scaled.name or "x")):
        if not re.fullmatch(r"\w[\w.-]*", word, re.ASCII):
            raise ConfigError(
                setting,
                word,
                "it names a folder",
                "use letters, digits, - _ . and begin with a letter, a digit or _",
            )
    whole = name if scaled.name is None else f"{name}-{scaled.name}"
    if len(whole) > LONGEST_NAME:
        raise ConfigError(
            "study.name", whole, "it names a folder", f"type {LONGEST_NAME} letters at most"
        )
    axes = _axes(values.get("axes"))
    variants = _settings_of("study.variants", values.get("variants"))
    for name_of, settings in variants.items():
        for key in settings.keys() & axes.keys():
            raise ConfigError(
                f"study.variants.{name_of}.{key}",
                settings[key],
                "an axis of this study, too",
                f"leave it out of study.variants or of study.axes.{key}",
            )
    return StudyConfig(
        whole,
        axes,
        variants,
        _chosen_names(values.get("only"), variants),
        scaled,
        _task_sets(values.get("evaluate")),
    )


def _axes(given: Any) -> dict[str, list[Any]]:
    """Values by setting; a single one is an axis of one. Raises ConfigError."""
    if not isinstance(given or {}, dict):
        raise ConfigError("study.axes", given, "expected settings by name", "type model: [a, b]")
    axes = {}
    for key, values in (given or {}).items():
        if values is None or values in ([], {}) or isinstance(values, dict):
            raise ConfigError(f"study.axes.{key}", values, "no value", f"type {key}: [a, b]")
        if isinstance(values, str) and "," in values:
            raise ConfigError(
                f"study.axes.{key}", values, "a list stands in brackets", f"type {key}: [{values}]"
            )
        axes[str(key)] = list(values) if isinstance(values, list | tuple) else [values]
    return axes


def _task_sets(given: Any) -> tuple[str, ...]:
    """Presets and full paths, each once. Raises ConfigError, UserError."""
    if given is None:
        return ()
    named = [given] if isinstance(given, str) else given
    if not isinstance(named, list | tuple) or not all(isinstance(one, str) for one in named):
        raise ConfigError(
            "study.evaluate", given, "expected names or paths of task sets",
            f"type one of {', '.join(PRESETS)}, a path, or [<one>,<other>]",
        )  # fmt: skip
    found: dict[str, str] = {}
    for one in named:
        tasks = task_set(one, "study.evaluate")
        if found.setdefault(tasks.name, tasks.given) != tasks.given:
            raise ConfigError(
                "study.evaluate", one, f"two task sets are called {tasks.name}", "rename one"
            )
    return tuple(found.values())


def _settings_of(name: str, values: Any) -> dict[str, Settings]:
    """A mapping of names to settings. Raises ConfigError for anything else."""
    values = values or {}
    wrong = values if not isinstance(values, dict) else None
    if wrong is None:
        wrong = next((v for v in values.values() if not isinstance(v, dict)), None)
    if wrong is not None:
        raise ConfigError(name, wrong, "expected settings by name", f"type {name}.<name>.<key>=...")
    return {str(key): dict(settings) for key, settings in values.items()}


def _chosen_names(only: Any, variants: dict[str, Settings]) -> tuple[str, ...] | None:
    if only is None:
        return None
    names = tuple(text_of("study.only", n) for n in (only if isinstance(only, list) else [only]))
    for name in names:
        if name not in variants:
            instead = did_you_mean(name, variants) if variants else "this study has no variants"
            raise ConfigError("study.only", name, "no such variant", instead)
    return names


def set_all(config: Config, settings: Settings) -> Config:
    """A copy with several settings replaced. Raises ConfigError."""
    for key, value in settings.items():
        config = replace_at(config, key, value)
    return config


def finish(
    config: Config,
    study: StudyConfig,
    typed: set[str],
    label: str | None = None,
    swept: Collection[str] = (),
) -> Config:
    """A run ready to be planned: labelled, at the study's scale, its recipe and budget settled, and
    checked.

    `typed` are the settings of the command line, `swept` those that an axis or a variant sets.
    Raises ConfigError.
    """
    config = replace(config, label=label)
    if "budget" in typed and config.tokens is not None:
        if "tokens" in typed:
            raise ConfigError(
                "tokens", f"{config.tokens:g}", "budget is set, too", "leave one of them out"
            )
        config = replace(config, tokens=None)  # a budget replaces the study's tokens
    scaled = study.scale.apply(config)
    check_settings(scaled)  # what recipe and budget are worked out from
    return validate(with_budget(with_recipe(scaled, {*typed, *swept})))


def with_budget(config: Config) -> Config:
    """The budget in FLOPs that `tokens` stands for: that of the nearest whole number of steps.

    Token choice is counted as if balanced, and a run ends when its budget is spent: one that routes
    deeper on average sees fewer tokens. Raises ConfigError for less than a step.
    """
    if config.tokens is None:
        return config
    cost = run_cost(config)
    steps = round(config.tokens / cost.tokens_per_step)
    if steps < 1:
        raise ConfigError(
            "tokens",
            f"{config.tokens:g}",
            f"less than one step of {cost.tokens_per_step} tokens",
            f"set tokens={cost.tokens_per_step} or more, or a smaller train.batch_size",
        )
    budget = steps * cost.step_flops[config.flops.convention]
    return replace(config, budget=float(f"{budget:.5e}"))  # digits that no rounding error moves
