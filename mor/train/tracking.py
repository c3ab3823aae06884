"""Optional W&B. A run without it, or with a dead backend, trains the same."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from mor.config import Config, to_dict
from mor.train.folder import RunFolder

log = logging.getLogger(__name__)


class Tracker(Protocol):
    def log(self, step: int, **values: float) -> None: ...
    def finish(self, **summary: Any) -> None: ...


class NoTracker:
    """Keeps nothing: metrics.jsonl and result.json hold it all."""

    def log(self, step: int, **values: float) -> None:
        pass

    def finish(self, **summary: Any) -> None:
        pass


class WandbTracker:
    """W&B with our run id, so that a resumed run goes on in the same place."""

    def __init__(self, config: Config, folder: RunFolder, group: str | None) -> None:
        import wandb

        self._run: Any = wandb.init(
            id=folder.run_id,
            name=folder.run_id,
            group=group,
            project=config.runtime.wandb_project,
            mode=config.runtime.wandb,  # type: ignore[arg-type]
            dir=str(folder.path),
            resume="allow",
            config=to_dict(config),
        )

    def log(self, step: int, **values: float) -> None:
        self._attempt(lambda: self._run.log(values, step=step))

    def finish(self, **summary: Any) -> None:
        self._attempt(lambda: self._run.summary.update(summary))
        self._attempt(lambda: self._run.finish())

    def _attempt(self, call: Any) -> None:
        if self._run is None:
            return
        try:
            call()
        except Exception as error:
            log.warning("W&B failed (%s): the run goes on without it", error)
            self._run = None


def tracker(config: Config, folder: RunFolder, group: str | None = None) -> Tracker:
    """The tracker that runtime.wandb asks for; none where W&B cannot start."""
    if config.runtime.wandb == "disabled":
        return NoTracker()
    try:
        return WandbTracker(config, folder, group)
    except Exception as error:
        log.warning("W&B did not start (%s): the run goes on without it", error)
        return NoTracker()
