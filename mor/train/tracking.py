"""Optional W&B. A run without it, or with a dead server, trains the same.

A server that does not answer costs a run some seconds: what it would have been sent is kept in the
run's folder instead, and `python -m sweeps sync` uploads it later.
"""

from __future__ import annotations

import contextlib
import logging
import netrc
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from ledger.folder import RunFolder
from ledger.wandb import base_url, hosts_with_the_same_key
from mor.config import Config, ConfigError, to_dict
from mor.flops import run_cost
from mor.train.schedule import planned_steps, schedule

log = logging.getLogger(__name__)

ANSWER_S = 4.0  # for a server to answer at all, before training
START_S = 15.0  # for W&B to take the run
FINISH_S = 10.0  # for what is not sent yet, after training
UNSENT = "unsent"  # marks what was tracked online and did not reach the server
_KEPT = "the run is kept in its folder instead, python -m sweeps sync uploads it"
GET_KEY = "set WANDB_API_KEY or type .venv/bin/wandb login"
API_KEY_HELP = (
    f"{GET_KEY}, or set runtime.wandb=offline and upload later with python -m sweeps sync"
)


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

    def __init__(self, config: Config, folder: RunFolder, group: str | None, mode: str) -> None:
        os.environ.setdefault(
            "WANDB_ERROR_REPORTING", "false"
        )  # its exit waits 10 s for a dead one
        import wandb

        self._run: Any = wandb.init(
            id=folder.run_id,
            name=folder.run_id,
            group=group,
            project=config.runtime.wandb_project,
            mode=mode,  # type: ignore[arg-type]
            dir=str(folder.path),
            resume="allow",
            reinit="finish_previous",
            config={**to_dict(config), "plan": _plan(config)},
            settings=wandb.Settings(
                base_url=base_url(),  # else that of this process's first run
                silent=True,
                console="off",  # log.txt has it
                init_timeout=START_S,
                finish_timeout=FINISH_S,
                finish_timeout_raises=True,
            ),
        )
        self._attempt(lambda: self._run.save(str(folder.config_file), policy="now"))

    def log(self, step: int, **values: float) -> None:
        # Committed at once: W&B keeps the newest step open, and would put its loss and tokens
        # over the result's when the run finishes.
        self._attempt(lambda: self._run.log(values, step=step, commit=True))

    def finish(self, **summary: Any) -> None:
        part = Path(self._run.dir).parent if self._run is not None else None
        self._attempt(lambda: self._run.summary.update(summary))
        self._attempt(lambda: self._run.finish())
        if self._run is None and part is not None and part.is_dir():
            (part / UNSENT).touch()  # all of it is on the disk
        self._run = None

    def _attempt(self, call: Any) -> None:
        if self._run is None:
            return
        try:
            call()
        except Exception as error:
            log.warning("W&B failed (%s): %s", error, _KEPT)
            self._run = None


def tracker(config: Config, folder: RunFolder, group: str | None = None) -> Tracker:
    """The tracker that runtime.wandb asks for, on the first rank of a run; one that writes to the
    run's folder where the server does not answer, and none where W&B cannot start at all."""
    mode = config.runtime.wandb
    if mode == "disabled" or int(os.environ.get("RANK", 0)) > 0:
        return NoTracker()
    if mode == "online" and not _answers(base_url()):
        log.warning("W&B at %s does not answer: %s", base_url(), _KEPT)
        mode = "offline"
    for choice in dict.fromkeys((mode, "offline")):
        try:
            return WandbTracker(config, folder, group, choice)
        except Exception as error:
            words = " ".join(str(error).split())[:200]
            after = _KEPT if choice == "online" else "the run goes on without it"
            log.warning("W&B did not start (%s): %s", words, after)
            _forget_session()
    return NoTracker()


def _forget_session() -> None:
    """End W&B's own process, which holds on to the id of a run that could not start."""
    import wandb

    with contextlib.suppress(Exception):
        wandb.teardown()


def _plan(config: Config) -> dict[str, Any]:
    """What the run was planned to be: steps, tokens, FLOPs under each convention."""
    steps, cost = planned_steps(config, schedule(config)), run_cost(config)
    return {
        "steps": steps.total,
        "warmup_steps": steps.warmup,
        "cooldown_steps": steps.cooldown,
        "tokens": steps.total * cost.tokens_per_step,
        "n_params": cost.params.total,
        "flops": {name: steps.total * step for name, step in cost.step_flops.items()},
    }


# -- server and key ---------------------------------------------------------------------------


def api_key_known() -> bool:
    """Whether W&B will find a key: in the environment, or where `wandb login` has put it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urllib.parse.urlsplit(base_url()).hostname or ""
    hosts = hosts_with_the_same_key(host)
    for name in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        path = Path(name).expanduser() if name else None
        try:
            if path and path.exists():
                known = netrc.netrc(str(path)).hosts
                if any(name in known for name in hosts):
                    return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def refuse_without_key(configs: Iterable[Config]) -> None:
    """Raises ConfigError where a run is to be tracked online and there is no key for it."""
    if any(config.runtime.wandb == "online" for config in configs) and not api_key_known():
        raise ConfigError(
            "runtime.wandb", "online", f"there is no API key for {base_url()}", API_KEY_HELP
        )


def _answers(url: str) -> bool:
    """Whether a server answers at all, whatever it says."""
    try:
        urllib.request.urlopen(url, timeout=ANSWER_S).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def offline_parts(folder: RunFolder, synced: bool = False) -> list[Path]:
    """What a run has tracked offline, a folder for each attempt, oldest first; those that W&B has
    taken already are left out, unless `synced`."""
    wandb = folder.path / "wandb"
    parts = [*wandb.glob("offline-run-*"), *(path.parent for path in wandb.glob(f"run-*/{UNSENT}"))]
    parts.sort(key=lambda part: part.name.removeprefix("offline-"))
    return [part for part in parts if synced or not list(part.glob("*.synced"))]
