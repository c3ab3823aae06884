"""The planned grid of `design`: typed sizes and budgets, or the runs of a plan file."""

import re
from pathlib import Path

import pandas as pd

from analysis.errors import AnalysisError
from analysis.formatting import listing
from analysis.points.run_store import number, plan_of
from ledger.ids import is_trunk
from ledger.plan_file import RunEntry, hours_unit

UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
NUMBER = re.compile(r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?)([kmbt]?)", re.IGNORECASE)


def numbers(text: str, option: str) -> list[float]:
    """`42M,106M,1.7B` or `2e18,5e18` as numbers, sorted, each once.

    Raises AnalysisError that names the option and the part that is not a positive number.
    """
    found = []
    for part in (piece.strip() for piece in text.split(",")):
        match = NUMBER.fullmatch(part)
        value = float(match[1]) * UNITS[match[2].lower()] if match else 0.0
        if not 0 < value < float("inf"):
            raise AnalysisError(
                f"{option} holds {part!r}, which is not a positive number: write it as 42M,1.7B or "
                "2e18,5e18."
            )
        found.append(value)
    return sorted(set(found))


def typed_grid(sizes: str, budgets: str, seeds: int) -> pd.DataFrame:
    """Every size at every budget, `seeds` times, with D = C / 6N."""
    rows = [
        {"model": "grid", "budget": budget, "params": size, "tokens": budget / (6 * size)}
        for budget in numbers(budgets, "--budgets")
        for size in numbers(sizes, "--sizes")
        for _ in range(seeds)
    ]
    return pd.DataFrame(rows)


def plan_grid(file: Path) -> pd.DataFrame:
    """The runs of a plan (`launch.plan_file`, or a study's plan.json): model, size, budget, seed,
    params (non-embedding), tokens, gpu_hours, their unit and the gpu and price that they are of,
    flops (exact ones that they pay for, validations included), run_id.

    Raises AnalysisError for a file without planned runs.
    """
    plan = plan_of(file)
    if not plan.runs:
        raise AnalysisError(
            f"{file} holds no planned runs: write it with "
            "`python sweep.py -m ... launch=plan launch.plan_file=plan.json`."
        )
    unit = hours_unit(plan.gpu)
    rows = [
        {
            "budget": number(run.budget),
            "params": number(run.n_params_nonembedding),
            "tokens": number(run.tokens),
            "gpu_hours": run.gpu_hours,
            "seed": number(run.seed),
            "model": run.model,
            "size": run.size,
            "run_id": run.run_id,
            "label": run.label or "",
            "unit": unit,
            "gpu": plan.gpu,
            "price": run.price,
            "flops": _paid(run),
        }
        for run in plan.runs
        if not is_trunk(run.run_id)
    ]
    return pd.DataFrame(rows)


def _paid(run: RunEntry) -> float:
    """Exact FLOPs of a whole run; what its own part pays for says what the validations are."""
    if not run.own_hours or run.own_exact_flops is None:
        return number(run.flops.get("exact"))
    own = run.own_exact_flops + (run.validation_flops or 0.0)
    return run.gpu_hours * own / run.own_hours


def refuse_unlike(grid: pd.DataFrame, models: list[str], where: str) -> None:
    """Raise AnalysisError where a planned model is not among those that a law is fitted to."""
    missing = sorted(set(grid["model"]) - set(models))
    if missing:
        raise AnalysisError(
            f"--law {where} holds no points of {listing(missing)} (it has {listing(models)}): give "
            "points with them, or --law published."
        )
