"""A run or a trunk from its resolved configuration: set up, train, validate, write the result."""

from __future__ import annotations

import datetime
import functools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ledger.folder import RunFolder
from ledger.result import Flops, Result, Throughput
from mor.config import Config, ConfigError
from mor.data.batches import Batches
from mor.data.needs import need_of_rows
from mor.data.packed import Corpus
from mor.data.prepare import prepare
from mor.devices import peak_tflops
from mor.evaluate.routing import scalars
from mor.evaluate.validation import FinalValidation, final_validation
from mor.flops import run_cost
from mor.identity import identity, run_id, trunk_id
from mor.model.components import layout
from mor.train.distributed import join, local_device
from mor.train.divergence import known_divergence, mark_diverged
from mor.train.folder import create_folder
from mor.train.loop import Diverged, Leg, Stopped, Trainer, status_of, train_leg
from mor.train.schedule import data_rows, has_trunk, points_of, schedule
from mor.train.tracking import NoTracker, tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hooks:
    """Callbacks of the caller: status writes, a request to stop, the source of rows."""

    on_status: Callable[[dict[str, Any]], None] = lambda status: None
    should_stop: Callable[[], bool] = lambda: False
    provenance: dict[str, Any] = field(default_factory=dict)  # git commit and the like
    group: str | None = None  # the study, as W&B's group


def train_trunk(config: Config, folder: RunFolder, hooks: Hooks) -> None:
    """Train the shared trunk to the plateau end of `config.budget` and keep that checkpoint.

    Starts from the furthest checkpoint before it, so a larger budget asked for later goes on from
    where the trunk stands, and a smaller one is trained again from the plateau before it.
    Raises Diverged, also where it has diverged before that point already, and Stopped.
    """
    plan, ranks = schedule(config), join()
    known = ranks.shared(known_divergence(folder, plan.plateau_end))
    if known:
        raise Diverged(known)
    if ranks.first:
        create_folder(folder, config)
    leg = Leg(
        folder,
        plan.trunk(),
        target=plan.plateau_end,
        keep_as=folder.plateau(plan.plateau_end),
        tracker=tracker(config, folder, hooks.group) if ranks.first else NoTracker(),
        points=points_of(config),
    )
    trainer = _trainer(config, folder)
    try:
        train_leg(trainer, leg, on_status=_with_mfu(trainer, hooks), should_stop=hooks.should_stop)
    except Diverged as error:
        if ranks.first:
            mark_diverged(folder, trainer.step_index, trainer.meter.spent, str(error))
        leg.tracker.finish(status="diverged", flops=_flops(trainer))
        raise
    except Stopped:
        leg.tracker.finish(status="stopped", flops=_flops(trainer))
        raise
    leg.tracker.finish(status="done", step=trainer.step_index, flops=_flops(trainer))


def train_run(config: Config, folder: RunFolder, start: Path | None, hooks: Hooks) -> None:
    """Train a run to its budget, from its trunk's plateau where `start` names one, and write
    `result.json`. A diverged run gets a result, too, so that it is not tried again."""
    plan, ranks = schedule(config), join()
    if ranks.first:
        create_folder(folder, config)
    leg = Leg(
        folder,
        plan,
        target=plan.budget,
        start=start,
        keep_as=folder.final,
        tracker=tracker(config, folder, hooks.group) if ranks.first else NoTracker(),
        points=points_of(config),
        ends=True,
    )
    trainer = _trainer(config, folder)
    try:
        train_leg(trainer, leg, on_status=_with_mfu(trainer, hooks), should_stop=hooks.should_stop)
    except Diverged as error:
        result = _result(config, trainer, hooks, "diverged", None, str(error))
        if ranks.first:
            folder.write_result(result)
        leg.tracker.finish(**result.to_dict())
        raise
    except Stopped:
        leg.tracker.finish(status="stopped", flops=_flops(trainer))
        raise
    model, n_tokens = trainer.spread.whole(), config.train.val_tokens
    if not ranks.first:
        return
    found = final_validation(model, trainer.batches, n_tokens, trainer.precision())
    hooks.on_status(status_of(trainer))  # a process that lost the run notices before it writes
    result = _result(config, trainer, hooks, "done", found)
    folder.write_result(result)
    routing = scalars(result.routing) if result.routing else {}
    last = folder.metrics_at(trainer.step_index)  # held back until now: W&B takes a step once
    leg.tracker.log(trainer.step_index, **{**last, **found.losses, **routing})
    leg.tracker.finish(**{**result.to_dict(), "routing": routing or None, "kv_statistics": None})


def _with_mfu(trainer: Trainer, hooks: Hooks) -> Callable[[dict[str, Any]], None]:
    """Heartbeats that say the share of the device's peak, too."""
    device = device_name(trainer.device)

    def on_status(numbers: dict[str, Any]) -> None:
        hooks.on_status({**numbers, "mfu": _mfu(trainer.config, trainer, device)})

    return on_status


def _flops(trainer: Trainer) -> dict[str, float]:
    """What was spent: under the run's own convention, and under each."""
    return {"spent": trainer.meter.spent, **trainer.meter.all_flops()}


def _trainer(config: Config, folder: RunFolder | None = None) -> Trainer:
    torch.set_num_threads(config.runtime.threads)
    train = config.train

    def corpus(rows: int) -> Corpus:
        need = need_of_rows(config.data, train.seq_len, rows, train.val_tokens)
        return prepare(config.data, need=need)

    # a run whose routers choose otherwise than planned may read more rows, and prepares them
    first = corpus(data_rows(config))
    batches = Batches(first, train.seq_len, train.batch_size, config.seed, corpus)
    path = folder.path if folder else None
    return Trainer(config, batches, choose_device(config), join(), path)


def choose_device(config: Config) -> torch.device:
    """The device of runtime.device. Raises ConfigError for cuda where there is none."""
    wanted = config.runtime.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("runtime.device", wanted, "torch sees no GPU here", "set it to auto")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(f"cuda:{local_device(join().local)}" if wanted == "cuda" else "cpu")


def _result(
    config: Config,
    trainer: Trainer,
    hooks: Hooks,
    status: str,
    found: FinalValidation | None,
    error: str | None = None,
) -> Result:
    params, depths = run_cost(config).params, layout(config.model, config.size)
    meter, speed = trainer.meter, trainer.throughput
    device, peak = device_name(trainer.device), trainer.micro_batch.peak()
    by_depth = found.nll_by_depth if found else None
    extra = {"nll_by_depth": list(by_depth.values())} if by_depth else {}
    return Result(
        run_id=run_id(config),
        status=status,
        error=error,
        model=config.model.name,
        size=config.size.name,
        budget=config.budget,
        convention=config.flops.convention,
        seed=config.seed,
        n_params=params.total,
        n_params_nonembedding=params.nonembedding,
        unique_layers=depths.unique_layers,
        effective_layers=depths.effective_layers,
        tokens=int(meter.work.processed),
        steps=trainer.step_index,
        epochs=trainer.batches.epoch(trainer.step_index),
        mean_recursions_train=sum(meter.work.tokens) / max(1.0, meter.work.processed),
        flops=Flops(planned=config.budget, spent=meter.spent, extra=meter.all_flops()),
        loss={**_training_loss(trainer), **found.losses} if found else {},
        routing=found.routing.as_json() if found and found.routing else None,
        kv_statistics=found.kv_statistics if found else None,
        throughput=Throughput(
            device=device,
            **device_counts(config, trainer.device, trainer.ranks.size),
            tokens_per_s=speed.tokens_per_s or None,
            flops_per_s=speed.flops_per_s or None,
            mfu=_mfu(config, trainer, device) or None,
            seconds=speed.seconds,
            peak_gb=peak[0] if peak else None,
            micro_batch=peak[1] if peak else None,
        ),
        trunk=trunk_id(config) if has_trunk(config) else None,
        settings=identity(config),
        recipe=config.train.recipe,
        data={"name": config.data.name, "fingerprint": config.data.fingerprint},
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        extra={**extra, **hooks.provenance},
    )


def _training_loss(trainer: Trainer) -> dict[str, float]:
    """Of the last step; nothing where the process has trained none and the checkpoint is old."""
    return {"train": trainer.last_loss} if math.isfinite(trainer.last_loss) else {}


def device_counts(config: Config, device: torch.device, processes: int) -> dict[str, Any]:
    """`devices` of a speed, as attempts count them, and on a CPU the `threads` of each process."""
    threads = None if device.type == "cuda" else config.runtime.threads
    return {"devices": processes * (threads or 1), "threads": threads}


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's name as its driver gives it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _mfu(config: Config, trainer: Trainer, device: str) -> float | None:
    """Model FLOPs utilisation: exact FLOPs per second over the devices' peak; None if unknown."""
    peak = config.runtime.peak_tflops or (
        measured_cpu_tflops(config.runtime.threads) if device == "cpu" else peak_tflops(device)
    )
    return trainer.throughput.flops_per_s / (trainer.ranks.size * peak * 1e12) if peak else None


@functools.cache
def measured_cpu_tflops(threads: int) -> float:
    """TFLOP/s of a large fp32 matmul on this machine: what a CPU run is measured against."""
    torch.set_num_threads(threads)
    n = 1024
    a, b = torch.ones(n, n), torch.ones(n, n)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best / 1e12
