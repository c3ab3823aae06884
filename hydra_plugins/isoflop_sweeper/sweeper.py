"""`python sweep.py -m ...`: axes and variants of study and command line, one plan, one launch.

A sweeper, not a launcher: a Hydra launcher must return finished jobs and so blocks, cannot give
each run its own resources and never skips what is done. A configuration is composed once for each
combination of groups (about 20 ms); swept values are then set on copies of it, so that a thousand
runs are expanded in a second.

The command line wins over the study: a key typed with one value stands in place of that of any axis
or variant, one typed with several becomes an axis.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ledger.errors import UserError
from mor.config import Config, ConfigError
from sweeps.config import SweepConfig, refuse_unknown_sizes, run_config, sweep_config
from sweeps.definition import finish, set_all
from sweeps.typed import quoted_form

Values = dict[str, Any]
ONE_VALUE = (
    "launch",
    "cluster",
    "study",
    "scale",
    "runs_dir",
    "studies_dir",
)  # of a study, not of a run


@dataclass
class IsoflopSweeperConf:
    _target_: str = "hydra_plugins.isoflop_sweeper.sweeper.IsoflopSweeper"


ConfigStore.instance().store(
    group="hydra/sweeper", name="isoflop", node=IsoflopSweeperConf, provider="isoflop_sweeper"
)


class IsoflopSweeper(Sweeper):
    """Plans every run of a study and launches the plan."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context = hydra_context
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        from sweeps.study import launch_study

        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        study, runs = expand(self.compose, parser.parse_overrides(arguments), self.groups())
        sizes = self.hydra_context.config_loader.get_group_options("size")
        refuse_unknown_sizes(study.launch.slurm, {*sizes, *(run.size.name for run in runs)})
        launch_study(study, runs)

    def groups(self) -> set[str]:
        """Names of the config groups that can be an axis."""
        assert self.hydra_context is not None
        found = self.hydra_context.config_loader.list_groups("")
        return {name for name in found if name != "hydra"}

    def compose(self, overrides: list[str]) -> Values:
        """The resolved configuration under some overrides, without Hydra's own part."""
        assert self.hydra_context is not None
        assert self.config is not None
        composed = self.hydra_context.config_loader.load_configuration(
            config_name=self.config.hydra.job.config_name,
            overrides=overrides,
            run_mode=RunMode.RUN,
        )
        values = OmegaConf.to_container(composed, resolve=False)
        assert isinstance(values, dict)
        del values["hydra"]
        return {str(key): value for key, value in values.items()}


def expand(
    compose: Any, overrides: list[Override], groups: set[str]
) -> tuple[SweepConfig, list[Config]]:
    """The study and its runs: each variant times the product of all axes, in their order.

    An axis of the study is replaced by the same key on the command line; any other key with
    several values is an axis, too. Raises ConfigError.
    """
    fixed = [o for o in overrides if not o.is_sweep_override()]
    swept = {_key(o): o for o in overrides if o.is_sweep_override()}
    _refuse_mistakes(fixed, swept, groups)
    lines, typed = [_line(o) for o in fixed], {_key(o) for o in overrides}
    base = sweep_config(compose(lines))
    axes = _axes(base, typed, swept)
    composed: dict[tuple[str, ...], Config] = {}
    runs = []
    for label, settings in base.study.chosen().items():
        own = {key: [value] for key, value in settings.items() if key not in typed}
        _refuse_of_study(f"study.variants.{label}.", settings, typed)
        group_axes = {key: values for key, values in (own | axes).items() if key in groups}
        value_axes = {key: values for key, values in (own | axes).items() if key not in groups}
        for choice in itertools.product(*group_axes.values()):
            chosen = tuple(f"{k}={v}" for k, v in zip(group_axes, choice, strict=True))
            if chosen not in composed:
                composed[chosen] = run_config(compose([*lines, *chosen]))
            for values in itertools.product(*value_axes.values()):
                run = set_all(composed[chosen], dict(zip(value_axes, values, strict=True)))
                runs.append(finish(run, base.study, typed, label or run.label, value_axes))
    return base, runs


def _refuse_mistakes(fixed: list[Override], swept: dict[str, Override], groups: set[str]) -> None:
    for key in swept:
        if key.split(".")[0] in ONE_VALUE:
            quoted = quoted_form(_line(swept[key]))
            raise ConfigError(
                key,
                swept[key].get_value_string(),
                "one value for a whole study",
                "launch one study for each" + (f", or type {quoted}" if quoted else ""),
            )
    for override in fixed:
        key, value = _key(override), override.value()
        if key in groups and isinstance(value, list):
            choices = ",".join(str(choice) for choice in value)
            raise ConfigError(key, f"[{choices}]", "a group has no list", f"type {key}={choices}")


def _refuse_of_study(path: str, settings: Values, typed: set[str]) -> None:
    """Raises ConfigError for what runs cannot differ in; the command line may have replaced it."""
    for key, value in settings.items():
        if key not in typed and key.split(".")[0] in ONE_VALUE:
            raise ConfigError(
                f"{path}{key}",
                value,
                "one value for a whole study",
                f"leave it out there and type {key}=<value>",
            )


def _key(override: Override) -> str:
    """The setting or group that an override names, without Hydra's + and ~."""
    return override.get_key_element().lstrip("+~")


def _axes(base: SweepConfig, typed: set[str], swept: dict[str, Override]) -> dict[str, list[Any]]:
    axes = {k: list(v) for k, v in base.study.axes.items() if k not in typed}
    _refuse_of_study("study.axes.", axes, typed)
    for key, override in swept.items():
        axes[key] = [_plain(value) for value in override.sweep_iterator()]
    for key, values in axes.items():
        if not values:
            raise ConfigError(f"study.axes.{key}", "[]", "an axis without values", "give some")
    return axes


def _plain(value: Any) -> Any:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _line(override: Override) -> str:
    if override.input_line is None:
        raise UserError("an override without text; type key=value")
    return override.input_line
