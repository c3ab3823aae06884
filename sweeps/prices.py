"""What training costs: device-hours at a measured speed, or at an assumed share of the peak."""

from __future__ import annotations

import math
import statistics

from ledger.devices import devices_of_run, devices_of_speed
from ledger.speeds import speeds
from ledger.store import Ledger
from mor.config import Config
from mor.data.known import known
from mor.devices import PEAK_TFLOPS, device_key
from mor.flops import RunCost
from mor.model.components import recurrence_of, router_of
from mor.train.schedule import points_of
from sweeps.config import ClusterConfig


class Price:
    """GPU-hours of exact FLOPs: at the measured speed of a model and size, or an assumed MFU."""

    def __init__(self, cluster: ClusterConfig, ledger: Ledger) -> None:
        self._assumed = PEAK_TFLOPS[cluster.gpu] * 1e12 * cluster.mfu
        self._measured = measured_flops_per_s(ledger, cluster.gpu)

    def hours(self, config: Config, *exact_flops: float) -> float:
        return sum(exact_flops) / self._measured.get(_shape(config), self._assumed) / 3600

    def is_measured(self, config: Config) -> bool:
        return _shape(config) in self._measured


def validation_flops(
    config: Config, cost: RunCost, after: int, upto: int, ends: bool = False
) -> float:
    """Exact FLOPs of the validations after step `after` up to `upto`, and with `ends` of that at
    the end of the run. A pass is priced at the forward third of training at full depth: at the end
    there is one for each smaller depth, too, which takes less."""
    model, train = config.model, config.train
    routes = router_of(model).routes
    passes = 2 if routes else 1  # causal and top-k
    points = points_of(config).between(after, upto) if train.eval_points else 0
    there = known(config.data).val
    held_out = math.inf if there is None else there
    tokens = points * passes * min(train.eval_tokens or train.val_tokens, held_out)
    if ends:
        shallower = router_of(model).shallower(model) if routes else ()
        depths = shallower or recurrence_of(model).validated_depths(model)
        tokens += (passes + len(depths)) * min(train.val_tokens, held_out)
    return tokens * cost.step_flops["exact"] / cost.tokens_per_step / 3


def measured_flops_per_s(ledger: Ledger, gpu: str) -> dict[tuple[str, str], float]:
    """Exact FLOP/s of one device, a GPU or a thread, per (model, size) on `gpu`s: the median of the
    finished runs, else what was measured before the study (`sweeps.measuring`)."""
    found = {
        (one.model, one.size): one.flops_per_s / devices_of_speed(one)
        for one in speeds(ledger.runs_dir)
        if device_key(one.device) == gpu and one.flops_per_s
    }
    of_runs: dict[tuple[str, str], list[float]] = {}
    for result in ledger.results():
        speed = result.throughput
        if device_key(speed.device) == gpu and speed.flops_per_s:
            devices = devices_of_run(ledger.folder(result.run_id), result)
            each = float(speed.flops_per_s) / devices
            of_runs.setdefault((result.model, result.size), []).append(each)
    return found | {key: statistics.median(values) for key, values in of_runs.items()}


def _shape(config: Config) -> tuple[str, str]:
    return config.model.name, config.size.name
