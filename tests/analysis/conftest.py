"""Synthetic studies with a known law, as tables and as run stores."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.points.table import tidy

EXPONENT = 0.5
BUDGETS = (1e10, 1e11, 1e12)
SIZES = {"3k": 3e3, "10k": 1e4, "30k": 3e4, "100k": 1e5, "300k": 3e5, "1m": 1e6, "3m": 3e6}


def optimal_size(budget: float, exponent: float = EXPONENT) -> float:
    return 1e5 * (budget / 1e11) ** exponent


def study_table(
    models: tuple[str, ...] = ("vanilla", "mor"),
    sizes: dict[str, float] | None = None,
    budgets: tuple[float, ...] = BUDGETS,
    seeds: tuple[int, ...] = (0,),
    exponent: float = EXPONENT,
    noise: float = 0.0,
) -> pd.DataFrame:
    """Exact parabolas around N_opt = 1e5 (C / 1e11)^exponent, with D = C / 6N."""
    rng = np.random.default_rng(7)
    rows = [
        {
            "model": model,
            "size": size,
            "budget": budget,
            "params": params,
            "tokens": budget / (6 * params),
            "loss": 2.0
            + 0.03 * np.log(params / optimal_size(budget, exponent)) ** 2
            + noise * rng.normal(),
            "seed": seed,
            "convention": "paper",
            "data_fingerprint": "f00d",
            "git_commit": "c0ffee",
            "code": "7ree",
            "run_id": f"{model}-{size}-{budget:g}-{seed}",
            "source": "synthetic",
        }
        for model in models
        for budget in budgets
        for size, params in (sizes or SIZES).items()
        for seed in seeds
    ]
    return tidy(pd.DataFrame(rows))


def result_of(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": 1,
        "run_id": row["run_id"],
        "model": row["model"],
        "size": row["size"],
        "budget": row["budget"],
        "convention": row["convention"],
        "seed": int(row["seed"]),
        "status": "done",
        "n_params": 2 * row["params"],
        "n_params_nonembedding": row["params"],
        "tokens": row["tokens"],
        "loss": {"train": 1.0, "val_nll_topk": row["loss"] - 0.5, "val_nll_causal": row["loss"]},
        "data": {"name": "stdlib", "fingerprint": row["data_fingerprint"]},
        "git_commit": row["git_commit"],
        "code": row["code"],
    }


def write_result(store: Path, result: dict[str, Any]) -> Path:
    folder = store / result["run_id"]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "result.json"
    file.write_text(json.dumps(result))
    return file


@pytest.fixture
def table() -> pd.DataFrame:
    return study_table()


@pytest.fixture
def make_table() -> Callable[..., pd.DataFrame]:
    return study_table


def build_store(root: Path, table: pd.DataFrame) -> Path:
    for row in table.to_dict("records"):
        write_result(root / "runs", result_of({str(k): v for k, v in row.items()}))
    return root / "runs"


def build_study(root: Path, table: pd.DataFrame) -> Path:
    folder = root / "studies" / "first"
    folder.mkdir(parents=True)
    vanilla = [run_id for run_id in table["run_id"] if run_id.startswith("vanilla")]
    others = ["vanilla-3k-trunk-aaaa", "vanilla-9m-1e13-0"]
    runs = [{"run_id": name} for name in vanilla + others]
    plan = {"schema": 1, "runs": runs, "runs_dir": "runs"}
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


@pytest.fixture
def store(tmp_path: Path, table: pd.DataFrame) -> Path:
    """`runs/` with the results of the synthetic study."""
    return build_store(tmp_path, table)


@pytest.fixture
def edit_result(store: Path) -> Callable[..., Path]:
    """Change keys of one run's result.json: edit_result(run_id, status="diverged")."""

    def edit(run_id: str, **changes: Any) -> Path:
        file = store / run_id / "result.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
        return file

    return edit


@pytest.fixture
def study(store: Path, table: pd.DataFrame) -> Path:
    """`studies/first/` beside the store, with the vanilla runs, a trunk and an unfinished run."""
    return build_study(store.parent, table)


@pytest.fixture(scope="module")
def written_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same study for tests that only read; pages are drawn into it once."""
    root = tmp_path_factory.mktemp("study")
    table = study_table()
    build_store(root, table)
    return build_study(root, table)


@pytest.fixture
def public_points() -> Path:
    """Points of public studies, which are not ours to publish: tests of them are optional."""
    folder = os.environ.get("MOR_PUBLIC_POINTS")
    if not folder:
        pytest.skip("MOR_PUBLIC_POINTS names no folder of public points")
    return Path(folder)
