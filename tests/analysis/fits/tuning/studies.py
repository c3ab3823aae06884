"""Tune studies with a known law, as tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

SIZES = {"s": 1e6, "m": 4e6, "l": 16e6}
BUDGETS = (1e15, 4e15)
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
LR_BEND = 0.05  # second derivative of the relative loss in log(lr)
BATCH_BEND = 0.02


def best_lr(params: float, tokens: float, a: float = 0.4, b: float = 0.0) -> float:
    return 2.0 * params**-a * tokens**-b


def rise(x: float, skewed: bool = False) -> float:
    """What a rate e^x times the best costs, as a share of the loss."""
    return float(LR_BEND * (np.exp(x) - 1 - x if skewed else 0.5 * x * x))


def tune_study(
    noise: float = 0.0,
    a: float = 0.4,
    b: float = 0.0,
    batches: tuple[int, ...] = (8,),
    best_batch: float = 32.0,
    seed: int = 0,
    models: tuple[str, ...] = ("vanilla",),
    sizes: dict[str, float] | None = None,
    budgets: tuple[float, ...] = BUDGETS,
    factors: tuple[float, ...] = FACTORS,
    centre: float | None = None,
    skewed: bool = False,
) -> pd.DataFrame:
    """Exactly quadratic losses about lr = 2 N^-a D^-b (and a batch); `factors` stand around the
    optimum at 0.8 of it, or around `centre`. `skewed`: e^x - 1 - x in place of x^2 / 2."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for model in models:
        for size, params in (sizes or SIZES).items():
            for budget in budgets:
                tokens = budget / (6 * params)
                best = best_lr(params, tokens, a, b)
                for batch in batches:
                    for factor in factors:
                        lr = (centre or 0.8 * best) * factor
                        off = rise(np.log(lr / best), skewed)
                        if len(batches) > 1:
                            off += 0.5 * BATCH_BEND * np.log(batch / best_batch) ** 2
                        loss = (2 + 100 * params**-0.3) * (1 + off + noise * rng.normal())
                        name = f"{model}-{size}-{budget:g}-{lr:g}-{batch}"
                        rows.append(
                            {
                                **{"model": model, "size": size, "budget": budget},
                                **{"params": params, "tokens": tokens, "loss": loss},
                                **{"run_id": name, "trunk": None, "seed": 0.0},
                                "settings": {
                                    **{"train.lr": repr(lr), "train.batch_size": batch},
                                    **{"train.seq_len": 64, "budget": budget, "seed": 0},
                                    **{"train.optimizer": "adamw", "size.d_model": params},
                                },
                            }
                        )
    return pd.DataFrame(rows)
