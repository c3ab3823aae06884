"""Model, optimiser, data and meter of one run on this rank, and what one step of them is.

A step's numbers are those of its whole batch, over all micro-batches and ranks: each rank works on
its own rows, gradients are averaged, and the meter, the losses and the load of routers are summed.
Nothing of a step that fails stays behind: what it routed is counted, and weights move, only when
its gradients are there and finite.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch

from ledger.damage import set_aside
from mor.config import Config
from mor.data.ahead import Ahead
from mor.data.batches import Batches
from mor.flops import Routed, no_work
from mor.model.transformer import Output
from mor.optim.state import build_optimizer, named_state
from mor.train import checkpoint
from mor.train.checkpoint import CorruptCheckpoint, Progress
from mor.train.distributed import Ranks
from mor.train.divergence import Diverged
from mor.train.initial import initial_model
from mor.train.memory import MicroBatch, OutOfMemory
from mor.train.meter import Meter
from mor.train.parallel import spread

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass
class Throughput:
    """Speed of all ranks since the process began, checkpoints and validation left out."""

    seconds: float = 0.0
    tokens: int = 0
    exact_flops: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def flops_per_s(self) -> float:
        return self.exact_flops / self.seconds if self.seconds else 0.0


@dataclass
class Tally:
    """What the micro-batches of a step add up to on this rank."""

    work: Routed
    load: list[int]  # tokens by their last recursion
    sums: dict[str, torch.Tensor] = field(default_factory=dict)  # means of losses

    def add(self, out: Output, parts: int) -> None:
        routed = out.routed
        self.work += Routed(
            routed.everyone.tokens,
            tuple(routed.tokens),
            tuple(routed.pairs),
            *routed.forward_only(),
        )
        self.load = [a + b for a, b in zip(self.load, routed.load, strict=True)]
        assert out.loss is not None
        for name, value in {"loss": out.loss, **out.auxiliary}.items():
            sum_so_far = self.sums.get(name, torch.zeros_like(value))
            self.sums[name] = sum_so_far + value.detach() / parts


class Trainer:
    """One run on this rank. `model` is the bare model; its weights may be shards."""

    def __init__(
        self,
        config: Config,
        batches: Batches,
        device: torch.device,
        ranks: Ranks | None = None,
        folder: Path | None = None,
    ) -> None:
        """`folder`: where the size of micro-batches is remembered. Raises ConfigError."""
        self.config, self.batches, self.device = config, batches, device
        self.ranks = ranks or Ranks()
        if device.type == "cuda" and torch.cuda.is_initialized():  # peaks are this run's own
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        self.micro_batch = MicroBatch(config, device, self.ranks.size, folder)
        each = self.micro_batch.per_rank
        own = slice(self.ranks.rank * each, (self.ranks.rank + 1) * each)
        self.ahead = Ahead(batches, own, pin=device.type == "cuda")
        self.model = initial_model(config, batches.corpus.meta.separator).to(device)
        self.model.set_speed(config.runtime)
        self._take_up_recomputing()
        self.spread = spread(self.model, config.runtime.parallel, device, self.ranks)
        self.optimizer = build_optimizer(self.model, config.train)
        self.meter = Meter(config)
        self.step_index = 0
        self.throughput = Throughput()
        self.last_loss = math.nan
        self.resumed_from: Path | None = None

    @property
    def data_wait(self) -> float:
        """Share of the time in steps that waited for rows, 0..1."""
        seconds = self.throughput.seconds
        return self.ahead.waited / seconds if seconds else 0.0

    # -- one step -------------------------------------------------------------------------------

    def step(self, factor: float) -> dict[str, float]:
        """One optimiser step at `factor` of the peak learning rate; returns its metrics.

        Raises Diverged, before any weight has moved, and OutOfMemory.
        """
        while self.micro_batch.size is None:
            self.micro_batch.measure(self._peak_memory, self.ranks.least)
            if self.micro_batch.size is None and not self.spread.recovers:
                self.micro_batch.remember()
                raise self._next_attempt()
            self._start_over()
        while (tally := self._gradients()) is None:
            self._lower_micro_batch()
        train = self.config.train
        norm = self.spread.clip(train.clip)
        metrics = {**self._add_up(tally, norm), "lr": train.lr * factor}
        self.last_loss = metrics["loss"]
        self._refuse_divergence(metrics)
        self.optimizer.set_rate(factor)
        self.optimizer.step()
        self.meter.work = self.meter.work + tally.work
        load = torch.tensor(tally.load).to(self.device, non_blocking=True)
        self.model.after_step(load, self.step_index)
        self.step_index += 1
        return metrics

    def _gradients(self) -> Tally | None:
        """Gradients of the whole batch; None, and no gradients, where memory ran out anywhere."""
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.micro_batch.parts()
        found = self._attempt(lambda: self._own_load(parts))
        if found is None:
            return None
        load = self._whole_load(found)
        tally = self._nothing()
        loss = self._attempt(lambda: self._all_but_the_last_backward(parts, load, tally))
        if loss is None:
            return None
        try:
            loss.backward()
        except torch.OutOfMemoryError:
            if self.ranks.size > 1:  # the others wait for gradients that will not come
                raise self._give_up() from None
            return None
        return tally

    def _nothing(self) -> Tally:
        n = self.model.n_blocks
        return Tally(no_work(n), [0] * n)

    def _all_but_the_last_backward(
        self, parts: list[slice], load: torch.Tensor | None, tally: Tally
    ) -> torch.Tensor:
        """The loss of the last micro-batch. Under DDP, no rank has waited for another so far."""
        for part in parts:
            last = part is parts[-1]
            with self.spread.syncing(last):
                loss = self._micro_batch(part, load, tally, len(parts))
                if not last:
                    loss.backward()
        return loss

    def _micro_batch(
        self, part: slice, load: torch.Tensor | None, tally: Tally, parts: int
    ) -> torch.Tensor:
        tokens, targets = self._batch(part)
        with self.precision():
            out = self.spread.forward(tokens, targets, load, self.step_index)
        tally.add(out, parts)
        assert out.total_loss is not None
        return out.total_loss / parts

    def _batch(self, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """A part of this rank's rows of the step's batch."""
        tokens, targets = self.ahead.batch(self.step_index)  # (B, S) each
        return (
            tokens[part].to(self.device, non_blocking=True),
            targets[part].to(self.device, non_blocking=True),
        )

    def precision(self) -> torch.autocast:
        bf16 = self.config.train.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)

    def _add_up(self, tally: Tally, norm: torch.Tensor) -> dict[str, float]:
        """Sum a tally over ranks; returns the losses of the whole batch and the gradient's norm.

        The only time in a step that the host waits for the device, unless routing makes it.
        """
        *losses, grad_norm = torch.stack([*tally.sums.values(), norm]).tolist()
        means = dict(zip(tally.sums, losses, strict=True))
        if self.ranks.size == 1:
            return {**means, "grad_norm": grad_norm}
        work, n = tally.work, self.model.n_blocks
        parts = [work.tokens, work.pairs, work.forward_tokens, work.forward_pairs]
        flat = self.ranks.total(
            [*means.values(), work.processed, *tally.load, *(x for part in parts for x in part)]
        )
        losses, processed, rest = flat[: len(means)], flat[len(means)], flat[len(means) + 1 :]
        tally.load, rest = [int(value) for value in rest[:n]], rest[n:]
        sums = [tuple(rest[start : start + n]) for start in range(0, len(rest), n)]
        tally.work = Routed(processed, *sums)
        whole = {name: loss / self.ranks.size for name, loss in zip(means, losses, strict=True)}
        return {**whole, "grad_norm": grad_norm}

    def _refuse_divergence(self, values: dict[str, float]) -> None:
        if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
            self.optimizer.zero_grad(set_to_none=True)
            raise Diverged(
                f"step {self.step_index + 1}: loss {values['loss']}, gradient norm "
                f"{values['grad_norm']}; a smaller train.lr makes another run"
            )

    # -- the load of routers --------------------------------------------------------------------

    def _own_load(self, parts: list[slice]) -> list[int]:
        """Tokens per depth over this rank's micro-batches, where the balancing loss needs it."""
        if not self.model.router.needs_load or self.ranks.size * len(parts) == 1:
            return []
        loads = []
        with self.precision():
            for part in parts:
                loads.append(self.model.router_load(self._batch(part)[0], self.step_index))
        return [int(value) for value in torch.stack(loads).sum(0).tolist()]

    def _whole_load(self, own: list[int]) -> torch.Tensor | None:
        """The load of the whole batch, so that the balancing loss is the batch's."""
        if not own:
            return None
        whole = torch.tensor([int(value) for value in self.ranks.total(own)])
        return whole.to(self.device, non_blocking=True)

    # -- memory ---------------------------------------------------------------------------------

    def _attempt(self, compute: Callable[[], T]) -> T | None:
        """The result, or None on all ranks where memory ran out on any of them."""
        result, short = None, False
        try:
            result = compute()
        except torch.OutOfMemoryError:
            short = True
        if short and not self.spread.recovers:
            raise self._give_up()
        return None if self.ranks.any(short)[0] else result

    def _lower_micro_batch(self) -> None:
        self.micro_batch.lower()
        self._start_over()
        if self.ranks.first:
            self.micro_batch.remember()

    def _start_over(self) -> None:
        """Nothing is left of a step that was begun, and the next one takes up what was chosen."""
        self.optimizer.zero_grad(set_to_none=True)
        self.spread.drop()
        self._free_memory()
        self._take_up_recomputing()

    def _take_up_recomputing(self) -> None:
        if self.micro_batch.recomputes:
            self.model.recompute_layers()

    def _give_up(self) -> OutOfMemory:
        """Memory ran out while other ranks wait: this attempt ends, the next one takes less."""
        self.micro_batch.lower()
        self.micro_batch.remember()
        return self._next_attempt()

    def _next_attempt(self) -> OutOfMemory:
        how = f"with {self.micro_batch.size} sequences in one forward"
        if self.micro_batch.recomputes:
            how = "with the activations of layers computed twice"
        return OutOfMemory(
            f"rank {self.ranks.rank} ran out of memory on {self.device}; type the same command "
            f"again: it goes on from the newest checkpoint {how}"
        )

    def _peak_memory(self, sequences: int) -> float:
        """Bytes at the peak of a forward and backward of so many sequences of this step, while the
        gradients of others are there: without them the first peak is that of the gradients, which
        come as activations go, and a sequence seems to take less than it does."""
        self._backward(1)
        self._free_memory()
        torch.cuda.reset_peak_memory_stats(self.device)
        self._backward(sequences)
        peak = float(torch.cuda.max_memory_reserved(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        return peak

    def _backward(self, sequences: int) -> None:
        with self.spread.syncing(True):
            self._micro_batch(slice(0, sequences), None, self._nothing(), 1).backward()

    def _free_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    # -- state ----------------------------------------------------------------------------------

    def state(self) -> tuple[checkpoint.Tensors, Progress]:
        """All that this rank writes of a checkpoint; the tensors themselves, not copies."""
        tensors = checkpoint.own(named_state(self.model, self.optimizer), self.ranks)
        loss = self.last_loss if math.isfinite(self.last_loss) else None
        return tensors, replace(self.meter.progress(self.step_index), loss=loss)

    def save(self, path: Path) -> None:
        checkpoint.save(path, *self.state(), self.ranks)

    def restore(self, paths: list[Path]) -> Path | None:
        """Take up the first checkpoint that is whole, and return it; set those before it aside and
        say so.

        All ranks call it with the same paths.
        """
        tensors = named_state(self.model, self.optimizer)
        for path in paths:
            try:
                progress = checkpoint.load(path, tensors, self.ranks)
            except CorruptCheckpoint as error:
                log.warning("corrupt checkpoint left out (%s); taking the one before", error)
                if self.ranks.first:
                    set_aside(path)
                continue
            self._take_up(progress)
            self.resumed_from = path
            log.info("resumed from %s at step %d", path.name, progress.step)
            return path
        return None

    def _take_up(self, progress: Progress) -> None:
        self.step_index = progress.step
        self.meter.work = progress.work
        self.last_loss = math.nan if progress.loss is None else progress.loss
