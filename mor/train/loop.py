"""The training loop: one leg of a run, from the newest complete checkpoint to a target in FLOPs.

What a step computes depends on the configuration and on the step's place only: the data order on
(seed, step), the learning rate on the FLOPs spent. So a leg that is killed at any moment and
started again ends with the same bits (CPU, same thread count) as one that was not, and a trunk
with its cool-down equals a run from scratch.

Every rank runs the loop; rank 0 alone writes metrics and heartbeats. After each step the ranks
agree on what comes next, so that all stop, checkpoint or fail at the same step.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.damage import set_aside
from ledger.folder import RunFolder
from ledger.metrics import VALIDATION, MetricsWriter
from mor.evaluate.validation import bits_per_byte
from mor.train import checkpoint
from mor.train.checkpoint import CorruptCheckpoint
from mor.train.distributed import OtherRankFailed
from mor.train.divergence import Diverged
from mor.train.on_the_way import Interrupted, validated
from mor.train.schedule import Points, Schedule
from mor.train.tracking import NoTracker, Tracker
from mor.train.trainer import Trainer
from mor.train.writer import Writer

__all__ = ["DamagedStart", "Diverged", "Leg", "Stopped", "Trainer", "status_of", "train_leg"]

log = logging.getLogger(__name__)

STATUS_S = 1.0  # seconds between heartbeats
LOG_S = 10.0  # seconds between lines of the run's log


class DamagedStart(CorruptCheckpoint):
    """The plateau that a run branches off is damaged; it is set aside, to be trained again."""


class Stopped(Exception):
    """The run was asked to stop; its state is in a checkpoint."""


@dataclass(frozen=True)
class Leg:
    """A stretch of training: a trunk up to a plateau end, a cool-down, or a whole run."""

    folder: RunFolder
    schedule: Schedule
    target: float  # FLOPs at which the leg ends
    start: Path | None = None  # a trunk's checkpoint, where the folder has none of its own
    keep_as: Path | None = None  # the checkpoint at the end; None: none is written
    tracker: Tracker = NoTracker()  # noqa: RUF009 (it has no state)
    points: Points = Points()  # noqa: RUF009 (frozen); steps that are validated on the way
    ends: bool = False  # in a run's validation, and not at a plateau of its trunk

    def at_end(self, spent: float) -> bool:
        """Whether the whole validation of a finished run comes next."""
        return self.ends and self.schedule.reached(spent, self.target)


def train_leg(
    trainer: Trainer,
    leg: Leg,
    *,
    on_status: Callable[[dict[str, Any]], None] = lambda status: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train `trainer` until `leg.target` is reached; `trainer` holds the final state.

    Raises Diverged (a number is not finite), Stopped (after a checkpoint), OutOfMemory, OSError
    (disk full), OtherRankFailed, DamagedStart, and what `on_status` raises.
    """
    ranks, runtime = trainer.ranks, trainer.config.runtime
    own = _resume(trainer, leg)  # else it begins where another has been validated
    writer = Writer(ranks, background=runtime.async_checkpoint, keep=runtime.keep_checkpoints)
    journal = _Journal(trainer, leg, on_status) if ranks.first else None
    clock = _Clock(runtime.checkpoint_s)
    try:
        if own:
            _validate(trainer, leg, journal, writer, should_stop)
        while not leg.schedule.reached(trainer.meter.spent, leg.target):
            values = _timed_step(trainer, leg.schedule)
            failure: BaseException | None = None
            try:
                if journal:
                    journal.write(values)
                writer.check()
            except Exception as error:
                failure = error
            due = ranks.first and not writer.busy and clock.checkpoint_due()
            stop, save, failed = ranks.any(should_stop(), due, failure is not None)
            if failed:
                raise failure or OtherRankFailed("another process of this run failed; see its log")
            if stop or save:
                writer.save(leg.folder.rolling(trainer.step_index), *trainer.state())
            if stop:
                writer.wait()
                raise Stopped(f"stopped at step {trainer.step_index}")
            _validate(trainer, leg, journal, writer, should_stop)
        if leg.keep_as and not ranks.shared(leg.keep_as.exists()):
            writer.save(leg.keep_as, *trainer.state())
        writer.wait()
    finally:
        if journal:
            journal.close()
        writer.close()


def _validate(
    trainer: Trainer,
    leg: Leg,
    journal: _Journal | None,
    writer: Writer,
    should_stop: Callable[[], bool],
) -> None:
    """Validate this step if it is a point on the way that is not in the metrics yet.

    Raises Stopped, after a checkpoint whose run validates the step first when it goes on.
    """
    ranks, step = trainer.ranks, trainer.step_index
    if leg.at_end(trainer.meter.spent) or not leg.points.due(step):
        return
    if ranks.shared(bool(journal and journal.has(step))):
        return
    failure: BaseException | None = None
    try:
        found = validated(trainer, journal.beat if journal else lambda: None, should_stop)
        if journal and found:
            journal.write_validation(found.figures)
    except Exception as error:
        failure = error
    stop = isinstance(failure, Interrupted)
    stop, failed = ranks.any(stop, failure is not None and not stop)
    if failed:
        raise failure or OtherRankFailed("another process of this run failed; see its log")
    if stop:
        writer.save(leg.folder.rolling(step), *trainer.state())
        writer.wait()
        raise Stopped(f"stopped at step {step}")


def _resume(trainer: Trainer, leg: Leg) -> bool:
    """Take up the newest whole checkpoint, or the one that the leg starts from; whether it is
    the folder's own."""
    ranks, folder = trainer.ranks, leg.folder
    paths: list[Path] = []
    if ranks.first:
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        checkpoint.prune(folder.checkpoints, trainer.config.runtime.keep_checkpoints)
        if leg.keep_as and checkpoint.is_damaged(leg.keep_as):
            log.warning("%s is damaged: set aside, made again", leg.keep_as.name)
            set_aside(leg.keep_as)
        paths = checkpoint.candidates(folder.checkpoints, at_most=leg.target)
        if leg.keep_as and leg.keep_as.exists():  # the process ended after it was written
            paths = [leg.keep_as, *(path for path in paths if path != leg.keep_as)]
    paths = ranks.shared(paths)
    found = trainer.restore(paths + ([leg.start] if leg.start else []))
    if found is None and leg.start:
        raise DamagedStart(f"{leg.start}: damaged and set aside; the trunk is trained there again")
    return found in paths


def _timed_step(trainer: Trainer, schedule: Schedule) -> dict[str, float]:
    began, before = time.perf_counter(), trainer.meter.flops("exact")
    values = trainer.step(schedule.factor(trainer.meter.spent))
    speed = trainer.throughput
    speed.seconds += time.perf_counter() - began
    speed.tokens += trainer.config.train.batch_size * trainer.config.train.seq_len
    speed.exact_flops += trainer.meter.flops("exact") - before
    return values


class _Clock:
    """When the next checkpoint is due, in wall seconds."""

    def __init__(self, checkpoint_s: float) -> None:
        self._checkpoint_s = checkpoint_s
        self._checkpoint = time.monotonic()

    def checkpoint_due(self) -> bool:
        due = time.monotonic() - self._checkpoint >= self._checkpoint_s
        if due:
            self._checkpoint = time.monotonic()
        return due


class _Journal:
    """What rank 0 writes on the way: metrics, and a heartbeat every second."""

    def __init__(
        self, trainer: Trainer, leg: Leg, on_status: Callable[[dict[str, Any]], None]
    ) -> None:
        self._trainer, self._leg, self._on_status = trainer, leg, on_status
        self._metrics = MetricsWriter(leg.folder.metrics_file)
        self._heartbeat = self._logged = -math.inf
        self._say_gap()

    def _say_gap(self) -> None:
        """Lines that were lost stay so: training to a checkpoint again for them is not worth it."""
        trainer, last = self._trainer, max(self._metrics.last, 0)
        own = trainer.resumed_from and trainer.resumed_from.parent == self._leg.folder.checkpoints
        if own and last + trainer.config.runtime.log_steps <= trainer.step_index:
            name = self._leg.folder.metrics_file.name
            log.warning(
                "%s ends at step %d and training goes on at %d: the steps between are lost",
                *(name, last, trainer.step_index),
            )

    def write(self, values: dict[str, float]) -> None:
        trainer = self._trainer
        if time.monotonic() - self._logged >= LOG_S:
            self._log()
        if trainer.step_index % trainer.config.runtime.log_steps == 0:
            entry = {
                **values,
                "tokens": int(trainer.meter.work.processed),
                "spent": trainer.meter.spent,
                "tokens_per_s": round(trainer.throughput.tokens_per_s, 1),
                "data_wait": round(trainer.data_wait, 4),
                "micro_batch": trainer.micro_batch.parts()[0].stop,
            }
            self._metrics.write(trainer.step_index, **entry)
            # W&B takes a step once: one that is validated next is sent with its validation.
            step, leg = trainer.step_index, self._leg
            if not (leg.at_end(trainer.meter.spent) or leg.points.due(step)):
                leg.tracker.log(step, **entry)
        self.beat()

    def has(self, step: int) -> bool:
        """Whether the metrics hold the validation of a step."""
        return step <= self._metrics.validated

    def write_validation(self, figures: dict[str, float]) -> None:
        trainer, step = self._trainer, self._trainer.step_index
        place = {"tokens": int(trainer.meter.work.processed), "spent": trainer.meter.spent}
        self._metrics.write_validation(step, **place, **figures)
        self._leg.tracker.log(step, **{**self._leg.folder.metrics_at(step), **place, **figures})
        log.info("step %d: validation loss %.4f", step, figures[VALIDATION])

    def beat(self) -> None:
        """A heartbeat, where the last one is a second ago."""
        if time.monotonic() - self._heartbeat >= STATUS_S:
            self._heartbeat = time.monotonic()
            self._on_status(status_of(self._trainer))

    def _log(self) -> None:
        """A line for who reads the log: where training stands."""
        self._logged = time.monotonic()
        trainer, target = self._trainer, self._leg.target
        log.info(
            "step %d: loss %.4f, %.3g of %.3g FLOPs, %.0f tokens/s",
            trainer.step_index,
            trainer.last_loss,
            trainer.meter.spent,
            target,
            trainer.throughput.tokens_per_s,
        )

    def close(self) -> None:
        if self._trainer.step_index:
            self._log()
        self._metrics.close()


def status_of(trainer: Trainer) -> dict[str, Any]:
    """What a heartbeat says of a run in progress; its loss is that of the newest batch."""
    loss = trainer.last_loss if math.isfinite(trainer.last_loss) else None
    return {
        "step": trainer.step_index,
        "spent": trainer.meter.spent,
        "tokens": int(trainer.meter.work.processed),
        "loss": loss,
        "bits_per_byte": loss and bits_per_byte(loss, trainer.batches.corpus.meta),
        "tokens_per_s": trainer.throughput.tokens_per_s,
        "flops_per_s": trainer.throughput.flops_per_s,
        "micro_batch": trainer.micro_batch.parts()[0].stop,
        "world_size": trainer.ranks.size,
    }
