"""A worker that is several processes of one job: rank 0 takes the tasks, all train them together.

Rank 0 alone sees the plan, the claims and the ledger's status. In each round all ranks say whether
they were asked to stop, and rank 0 hands out a task, or nothing, or the end. Errors that all ranks
meet alike (a stop, a divergence, an invalid setting) end the task; after any other the ranks
no longer stand at the same place, and the job ends: the next attempt resumes from the newest
checkpoint.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.errors import UserError
from mor.config import Config
from sweeps.tasks import Task

if TYPE_CHECKING:
    from mor.train.distributed import Ranks
    from mor.train.run import Hooks

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 60.0  # between words of rank 0 while it alone works: others give up after 30 min


@dataclass(frozen=True)
class Order:
    """What all ranks are to do now."""

    task: Task
    start: Path | None  # the trunk's plateau that a run branches off

    def carry_out(self, hooks: Hooks) -> None:
        from mor.train.run import train_run, train_trunk

        task = self.task
        if task.is_data:
            self._alone(self._prepare, hooks)
        elif task.is_evaluation:
            self._alone(self._score, hooks)
        elif task.is_segment:
            train_trunk(task.config, task.folder, hooks)
        else:
            train_run(task.config, task.folder, self.start, hooks)

    def _prepare(self, hooks: Hooks) -> None:
        from mor.data.build import PreparationStopped
        from mor.data.needs import Need, Prepared
        from mor.data.prepare import prepare
        from mor.data.sharded import How
        from mor.train.loop import Stopped

        config, task = self.task.config, self.task
        need = Need(int(task.target), task.val_tokens)

        def progress(there: Prepared) -> None:
            hooks.on_status({"spent": there.train, "tokens": there.train})

        how = How(preparing_workers(config), False, False, hooks.should_stop, progress)
        try:
            prepare(config.data, False, need, how)
        except PreparationStopped:
            raise Stopped("stopped; the shards that are whole are kept") from None

    def _alone(self, work: Callable[[Hooks], None], hooks: Hooks) -> None:
        """Rank 0 alone works; the others hear from it every minute, so that none gives up."""
        ranks = _join()
        if not ranks.first:
            while not ranks.shared(None):
                pass
            return
        heard = time.monotonic()

        def should_stop() -> bool:
            nonlocal heard
            if time.monotonic() - heard > KEEP_ALIVE_S:
                heard = time.monotonic()
                ranks.shared(False)
            return hooks.should_stop()

        try:
            work(replace(hooks, should_stop=should_stop))
        finally:
            ranks.shared(True)

    def _score(self, hooks: Hooks) -> None:
        from mor.evaluate.evaluation import Extent, evaluate_run
        from mor.evaluate.task_sets import task_set

        tasks = task_set(self.task.evaluate or "", "study.evaluate")
        if tasks.fingerprint != self.task.fingerprint:
            raise UserError(
                f"study.evaluate={tasks.given}: its tasks, or the harness, are not those of the "
                "plan; launch the study again"
            )
        evaluate_run(self.task.folder, tasks, Extent(), hooks)


def preparing_workers(config: Config) -> int:
    """Processes that prepare a corpus: as set, else one for each core that this job has."""
    from mor.data.command import cores

    job = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return config.runtime.workers or (int(job) if job.isdigit() else cores())


END = "end"


class RankLost(UserError):
    """Another process of this job is gone, and this one cannot go on without it."""


def following() -> bool:
    """Whether this process is one of several and not the first."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1 and os.environ.get("RANK", "0") != "0"


def refuse_several(what: str) -> None:
    """Raises UserError where the environment is that of several processes of one job."""
    size = int(os.environ.get("WORLD_SIZE") or 1)
    if size > 1:
        raise UserError(
            f"WORLD_SIZE={size}: torchrun trains one run on several processes, {what}; "
            "leave out -m for one run, or start the study without torchrun"
        )


def _join() -> Ranks:
    from mor.train.distributed import join

    return join()


@dataclass
class Crew:
    """Rank 0's side. A process alone is a crew of one."""

    ranks: Ranks = field(default_factory=_join)
    _ordered: bool = False  # in this round

    def next_round(self, stop: threading.Event) -> bool:
        """Begin a round. False, and `stop` is set: a rank was asked to stop."""
        self._ordered = False
        if self.ranks.any(stop.is_set())[0]:
            stop.set()
        return not stop.is_set()

    def give(self, order: Order) -> None:
        """Tell the others what to train; at most once in a round."""
        self._ordered = True
        self.ranks.shared(order)

    def end_round(self) -> None:
        """Let the others go on to the next round, if they had nothing to do in this one."""
        if not self._ordered:
            self.ranks.shared(None)

    def dismiss(self) -> None:
        """Let the others go, at the end of a round in which nothing was handed out."""
        self.ranks.shared(END)

    def lost(self, error: BaseException) -> bool:
        """Whether an error says that another rank is gone."""
        from mor.train.distributed import tells_of_a_lost_rank

        return self.ranks.size > 1 and tells_of_a_lost_rank(error)

    def break_up(self, error: BaseException) -> None:
        """After an error of this rank alone: raises it where others wait for this rank."""
        if self.ranks.size > 1:
            raise error


def follow(stop: threading.Event) -> int:
    """The side of every other rank: train what rank 0 hands out; returns how many tasks."""
    from mor.train.distributed import OtherRankFailed, leave
    from mor.train.loop import DamagedStart, Diverged, Stopped
    from mor.train.memory import OutOfMemory
    from mor.train.run import Hooks

    ranks, count = _join(), 0
    while not ranks.any(stop.is_set())[0]:
        order: Order | str | None = ranks.shared(None)
        if order == END:
            break
        if not isinstance(order, Order):
            continue
        count += 1
        try:
            order.carry_out(Hooks(should_stop=stop.is_set))
        except OutOfMemory:
            raise
        except (Stopped, Diverged, DamagedStart, OtherRankFailed, UserError) as end:
            log.info("rank %d, %s: %s", ranks.rank, order.task.task_id, end)
    leave()
    return count
