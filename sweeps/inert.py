"""No code runs from a configuration: what Hydra would call in a study's YAML is refused.

Hydra instantiates every callback that a configuration names (`_target_`), and Python's logging
every class or function ("()", class). The sweeper and the launcher it checks itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, ListConfig, OmegaConf

from ledger.errors import UserError

CALLED = ("_target_", "()", "class")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
CHECKED_BY_HYDRA = ("hydra.sweeper", "hydra.launcher")


def refuse_code() -> None:
    """From now on, a configuration that names something to call is refused with UserError, before
    it is called."""
    if hasattr(ConfigLoaderImpl, "_inert"):
        return
    load = ConfigLoaderImpl.load_configuration

    def inert(self: ConfigLoaderImpl, *given: Any, **named: Any) -> DictConfig:
        config = load(self, *given, **named)
        for name, value in _calls(config.get("hydra"), "hydra"):
            raise UserError(
                f"{name}={value}: a configuration cannot name code to run; leave it out"
            )
        return config

    loader: Any = ConfigLoaderImpl
    loader.load_configuration = inert
    loader._inert = True


def _calls(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Everything below a node that would be called, by its dotted name."""
    if path in CHECKED_BY_HYDRA:
        return
    if isinstance(node, DictConfig | ListConfig):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, dict):
        for key, value in node.items():
            if key in CALLED and not str(value or "logging.").startswith("logging."):
                yield f"{path}.{key}", value
            yield from _calls(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from _calls(value, path)
    elif isinstance(node, str) and node.startswith("ext://") and node not in STREAMS:
        yield path, node
