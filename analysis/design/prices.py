"""What a run costs again: its FLOPs at the speed that finished runs of its curve and size have
shown, the median as in the plan of a new launch, or else what it was planned at.

A study's plan is often older than its first measured speed, which may be a tenth of the assumed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from analysis.compare.device_time import Measured
from analysis.points.table import curve_of

DEVICE_HOURS = "device-hours"
MEASURED = "measured"  # how a plan has priced a run; assumed otherwise


@dataclass(frozen=True)
class Price:
    """Hours of one device: devices x wall."""

    hours: float
    measured: bool  # at a speed that was measured


def prices(
    points: pd.DataFrame, measured: Mapping[str, Measured], plan: pd.DataFrame | None
) -> tuple[dict[str, Price], str]:
    """A price for each point by run id, where there is one, and their unit. `plan` is that of the
    points' study (`analysis.design.grid.plan_grid`); without one a run has its measured FLOPs."""
    if plan is None:
        speeds = _speeds(points, measured)
        found = {
            name: Price(one.flops / speeds[name] / 3600, True) for name, one in measured.items()
        }
        return found, DEVICE_HOURS
    gpu = str(plan["gpu"].iloc[0])
    speeds = _speeds(points, {k: m for k, m in measured.items() if _is(m.device, gpu)})
    found = {}
    for row in plan.to_dict("records"):
        name, hours = str(row["run_id"]), float(row["gpu_hours"])
        known = name in speeds and row["flops"] > 0
        again = row["flops"] / speeds[name] / 3600 if known else hours
        found[name] = Price(again, known or row["price"] == MEASURED)
    return found, str(plan["unit"].iloc[0])


def _speeds(points: pd.DataFrame, measured: Mapping[str, Measured]) -> dict[str, float]:
    """Exact FLOPs a second of one device, of every point whose curve and size have a run with a
    speed, by run id."""
    names = points["run_id"].astype(str)
    runs = [measured.get(name) for name in names]
    own = pd.Series([run.flops / run.seconds if run else None for run in runs], names, dtype=float)
    median = own.groupby([curve_of(points).to_numpy(), points["params"].to_numpy()])
    return {str(name): speed for name, speed in median.transform("median").dropna().items()}


def _is(device: str, gpu: str) -> bool:
    """Whether a device is the one that a plan is priced on, as in NVIDIA H100 80GB HBM3: h100."""
    name = "[ -]?".join(re.escape(letter) for letter in gpu)
    return bool(gpu) and bool(re.search(rf"(?<![a-z0-9]){name}(?![a-z0-9])", device, re.IGNORECASE))
