"""Points that follow a known law, for the tests of approach 3 and the joint law."""

import numpy as np
import pandas as pd

from analysis.points.table import tidy

TRUTH = {"A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.3, "E": 1.7}
LOOPED = {"A": 60.0, "alpha": 0.199, "B": 4000.0, "beta": 0.369, "E": 1.57, "phi": 0.459}
EXTRA = ("trunk", "n_once", "n_rec", "r")


def law_table(noise: float = 0.0, sizes: int = 8, budgets: int = 5, seed: int = 0) -> pd.DataFrame:
    """An isoFLOP grid on L = E + A/N^alpha + B/D^beta with log-normal noise; one trunk a size."""
    rng = np.random.default_rng(seed)
    rows = []
    for budget in np.geomspace(1e18, 1e21, budgets):
        centre = np.sqrt(budget / 120)
        for trunk, params in enumerate(centre * np.geomspace(0.2, 5, sizes)):
            tokens = budget / (6 * params)
            loss = TRUTH["E"] + TRUTH["A"] / params ** TRUTH["alpha"]
            loss += TRUTH["B"] / tokens ** TRUTH["beta"]
            loss *= np.exp(noise * rng.normal())
            rows.append((params, tokens, loss, budget, f"trunk-{trunk}"))
    columns = ["params", "tokens", "loss", "budget", "trunk"]
    table = pd.DataFrame(rows, columns=columns).assign(model="vanilla")
    return tidy(table, ("trunk",))


def looped_table(noise: float = 0.002, seed: int = 0) -> pd.DataFrame:
    """Three depths (r = 1, 2, 4), eight sizes, five budgets on the published looped law."""
    rng = np.random.default_rng(seed)
    rows = []
    for budget in np.geomspace(1e18, 1e20, 5):
        for r in (1, 2, 4):
            for once in np.geomspace(2e7, 1e9, 8):
                rec = 0.0 if r == 1 else 4 * once
                tokens = budget / (6 * (once + r * rec))
                size = once + r ** LOOPED["phi"] * rec
                loss = LOOPED["E"] + LOOPED["A"] * size ** -LOOPED["alpha"]
                loss += LOOPED["B"] * tokens ** -LOOPED["beta"]
                loss *= np.exp(noise * rng.normal())
                model = "vanilla" if r == 1 else f"looped-{r}"
                rows.append((model, once + rec, once, rec, r, tokens, loss, budget))
    columns = ["model", "params", "n_once", "n_rec", "r", "tokens", "loss", "budget"]
    return tidy(pd.DataFrame(rows, columns=columns), EXTRA)


def refit(params: np.ndarray, tokens: np.ndarray, losses: np.ndarray, truth: dict) -> np.ndarray:
    """The exponent a of each row of `losses` (studies, runs), by Gauss-Newton from the truth."""
    theta = np.log([[truth["A"], 1, truth["B"], 1, truth["E"]]] * len(losses))
    theta[:, 1], theta[:, 3] = truth["alpha"], truth["beta"]
    for _ in range(12):
        size = np.exp(theta[:, :1] - theta[:, 1:2] * np.log(params))
        data = np.exp(theta[:, 2:3] - theta[:, 3:4] * np.log(tokens))
        floor = np.exp(theta[:, 4:]) + 0 * size
        rows = (size, -size * np.log(params), data, -data * np.log(tokens), floor)
        jacobian = np.stack(rows, axis=2)
        short = losses - size - data - floor
        flipped = jacobian.transpose(0, 2, 1)
        theta = theta + np.linalg.solve(flipped @ jacobian, flipped @ short[:, :, None])[:, :, 0]
    return theta[:, 3] / (theta[:, 1] + theta[:, 3])
