"""The training loop: one leg of a run, from the newest complete checkpoint to a target in FLOPs.

What a step computes depends on the configuration and on the step's place only: the data order on
(seed, step), the learning rate on the FLOPs spent. So a leg that is killed at any moment and
started again ends with the same bits (CPU, same thread count) as one that was not, and a trunk
with its cool-down equals a run from scratch.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mor.config import Config
from mor.data.batches import Batches
from mor.model.transformer import Transformer
from mor.train import checkpoint
from mor.train.checkpoint import CorruptCheckpoint, Progress
from mor.train.folder import MetricsWriter, RunFolder
from mor.train.meter import Meter
from mor.train.optimizer import adamw, named_state, set_lr
from mor.train.schedule import Schedule
from mor.train.tracking import NoTracker, Tracker

log = logging.getLogger(__name__)

STATUS_S = 1.0  # seconds between heartbeats


class Diverged(Exception):
    """The loss is no longer a number: the run is stopped and marked so."""


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


@dataclass
class Throughput:
    """Speed since the process began, checkpoints and validation left out."""

    seconds: float = 0.0
    tokens: int = 0
    exact_flops: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def flops_per_s(self) -> float:
        return self.exact_flops / self.seconds if self.seconds else 0.0


class Trainer:
    """Model, optimiser, data and meter of one run in this process."""

    def __init__(self, config: Config, batches: Batches, device: torch.device) -> None:
        self.config, self.batches, self.device = config, batches, device
        vocab = config.data.vocab_size
        separator = batches.corpus.meta.separator
        self.model = Transformer(
            config.model, config.size, vocab, seed=config.seed, separator=separator
        ).to(device)
        self.model.set_speed(config.runtime)
        self.optimizer = adamw(self.model, config.train)
        self._parameters = list(self.model.parameters())
        self.meter = Meter(config)
        self.step_index = 0
        self.throughput = Throughput()
        self.last_loss = math.nan

    # -- one step -------------------------------------------------------------------------------

    def step(self, factor: float) -> dict[str, float]:
        """One optimiser step at `factor` of the peak learning rate; returns its metrics."""
        train = self.config.train
        size = self.config.runtime.micro_batch or train.batch_size
        parts = [slice(i, i + size) for i in range(0, train.batch_size, size)]
        load = self._whole_batch_load(parts)
        sums: dict[str, torch.Tensor] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for part in parts:
            tokens, targets = self._batch(part)
            with self.precision():
                out = self.model(
                    tokens, targets, load=load, step=self.step_index, keep_logits=False
                )
            (out.total_loss / len(parts)).backward()
            self.meter.add(tokens.numel(), out.routed.tokens, out.routed.pairs)
            for name, value in {"loss": out.loss, **out.auxiliary}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() / len(parts)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, train.clip)
        set_lr(self.optimizer, train.lr * factor)
        self.optimizer.step()
        self._update_balance(load, out)
        self.step_index += 1
        metrics = {name: value.item() for name, value in sums.items()}
        self.last_loss = metrics["loss"]
        return {**metrics, "grad_norm": norm.item(), "lr": train.lr * factor}

    def _batch(self, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, targets = self.batches.batch(self.step_index, part)  # (B, S) each
        return (
            torch.from_numpy(tokens).to(self.device, non_blocking=True),
            torch.from_numpy(targets).to(self.device, non_blocking=True),
        )

    def precision(self) -> torch.autocast:
        bf16 = self.config.train.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)

    def _whole_batch_load(self, parts: list[slice]) -> torch.Tensor | None:
        """Tokens per depth over all micro-batches, so that the balancing loss is the batch's."""
        if self.config.model.router.type != "token" or len(parts) == 1:
            return None
        with self.precision():
            step = self.step_index
            loads = [self.model.router_load(self._batch(part)[0], step) for part in parts]
        return torch.stack(loads).sum(0)

    def _update_balance(self, load: torch.Tensor | None, out: Any) -> None:
        router = self.config.model.router
        if router.type == "token" and router.balancing == "loss_free":
            own = torch.tensor(out.routed.load, device=self.device)
            self.model.update_balance(own if load is None else load, self.step_index)

    # -- state ----------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        tensors = named_state(self.model, self.optimizer)
        checkpoint.save(path, tensors, self.meter.progress(self.step_index))

    def restore(self, paths: list[Path]) -> bool:
        """Take up the first checkpoint that is whole; say which are not. False: none is."""
        for path in paths:
            try:
                progress = checkpoint.load(path, named_state(self.model, self.optimizer))
            except CorruptCheckpoint as error:
                log.warning("corrupt checkpoint left out (%s); taking the one before", error)
                continue
            self._take_up(progress)
            log.info("resumed from %s at step %d", path.name, progress.step)
            return True
        return False

    def _take_up(self, progress: Progress) -> None:
        self.step_index = progress.step
        self.meter.work = progress.work


def train_leg(
    trainer: Trainer,
    leg: Leg,
    *,
    on_status: Callable[[dict[str, Any]], None] = lambda status: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train `trainer` until `leg.target` is reached; `trainer` holds the final state.

    Raises Diverged (loss not finite), Stopped (after a checkpoint), OSError (disk full).
    """
    folder, runtime = leg.folder, trainer.config.runtime
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    checkpoint.prune(folder.checkpoints, runtime.keep_checkpoints)
    paths = checkpoint.candidates(folder.checkpoints, at_most=leg.target)
    if not trainer.restore(paths + ([leg.start] if leg.start else [])) and leg.start:
        raise CorruptCheckpoint(f"{leg.start}: the trunk's plateau cannot be read")
    metrics = MetricsWriter(folder.metrics_file)
    clock = _Clock(runtime.checkpoint_s)
    try:
        while not leg.schedule.reached(trainer.meter.spent, leg.target):
            began, before = time.perf_counter(), trainer.meter.flops("exact")
            values = trainer.step(leg.schedule.factor(trainer.meter.spent))
            _count(trainer, time.perf_counter() - began, before)
            _refuse_divergence(trainer.step_index, values)
            if trainer.step_index % runtime.log_steps == 0:
                _log(trainer, leg, metrics, values)
            if clock.heartbeat_due():
                on_status(status_of(trainer))
            if should_stop():
                trainer.save(folder.rolling(trainer.step_index))
                raise Stopped(f"stopped at step {trainer.step_index}")
            if clock.checkpoint_due():
                trainer.save(folder.rolling(trainer.step_index))
                checkpoint.prune(folder.checkpoints, runtime.keep_checkpoints)
    finally:
        metrics.close()
    if leg.keep_as and not leg.keep_as.exists():
        trainer.save(leg.keep_as)


class _Clock:
    """When the next heartbeat and the next checkpoint are due, in wall seconds."""

    def __init__(self, checkpoint_s: float) -> None:
        self._checkpoint_s = checkpoint_s
        self._heartbeat = -math.inf
        self._checkpoint = time.monotonic()

    def heartbeat_due(self) -> bool:
        due = time.monotonic() - self._heartbeat >= STATUS_S
        if due:
            self._heartbeat = time.monotonic()
        return due

    def checkpoint_due(self) -> bool:
        due = time.monotonic() - self._checkpoint >= self._checkpoint_s
        if due:
            self._checkpoint = time.monotonic()
        return due


def _count(trainer: Trainer, seconds: float, exact_before: float) -> None:
    speed = trainer.throughput
    speed.seconds += seconds
    speed.tokens += trainer.config.train.batch_size * trainer.config.train.seq_len
    speed.exact_flops += trainer.meter.flops("exact") - exact_before


def _refuse_divergence(step: int, values: dict[str, float]) -> None:
    if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
        raise Diverged(
            f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}; "
            "a smaller train.lr makes another run"
        )


def _log(trainer: Trainer, leg: Leg, metrics: MetricsWriter, values: dict[str, float]) -> None:
    entry = {
        **values,
        "tokens": int(trainer.meter.work.processed),
        "spent": trainer.meter.spent,
        "tokens_per_s": round(trainer.throughput.tokens_per_s, 1),
    }
    metrics.write(trainer.step_index, **entry)
    leg.tracker.log(trainer.step_index, **entry)


def status_of(trainer: Trainer) -> dict[str, Any]:
    """What a heartbeat says of a run in progress."""
    return {
        "step": trainer.step_index,
        "spent": trainer.meter.spent,
        "tokens": int(trainer.meter.work.processed),
        "loss": trainer.last_loss if math.isfinite(trainer.last_loss) else None,
        "tokens_per_s": trainer.throughput.tokens_per_s,
        "flops_per_s": trainer.throughput.flops_per_s,
    }
