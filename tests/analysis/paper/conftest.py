"""Studies of the paper's variants at a toy scale, as run stores."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DEFAULTS: dict[str, Any] = {
    "model.architecture": "vanilla",
    "model.n_recursions": 1,
    "model.sharing": "middle_cycle",
    "model.kv": "recursion",
    "model.kv_share": 2,
    "model.router.type": "none",
    "model.router.network": "linear",
    "model.router.activation": "sigmoid",
    "model.router.alpha": "0.1",  # results write fractions as text
    "model.router.sampling": "aux_loss",
    "model.router.aux_coeff": "0.001",
    "model.router.balancing": "loss",
    "model.router.balance_coeff": "0.1",
    "model.router.bias_update_rate": "0.001",
    "model.router.capacity_warmup_steps": 0,
    "model.router.z_coeff": 0,
}


def routing_of(tokens: int = 1000, recursions: int = 3, seed: int = 0) -> dict[str, Any]:
    """Figures of a router as a run's result holds them, consistent with one another."""
    rng = np.random.default_rng(seed)
    edges = np.linspace(0, 1, 21)
    selected, unselected = [[0] * 19 + [tokens]], [[0] * 20]
    reach = tokens
    for r in range(1, recursions):
        kept = tokens * (recursions - r) // recursions
        selected.append(np.histogram(rng.beta(8, 2, kept), edges)[0].tolist())
        unselected.append(np.histogram(rng.beta(2, 8, reach - kept), edges)[0].tolist())
        reach = kept
    text = list("def half(x):\n\treturn x / 2  # $5\n" * 5)[:150]
    return {
        "rule": "causal",
        "tokens": tokens,
        "mean_depth": 2.0,
        "depth_share": [1 / recursions] * recursions,
        "dead_token_ratio": 0.125,
        "sampling_accuracy": [None, 0.9, 0.98],
        "max_violation": 0.25,
        "entropy": 1.05,
        "score_histogram": {
            "edges": edges.tolist(),
            "selected": selected,
            "unselected": unselected,
        },
        "nll_by_depth": [2.5, 2.3, 2.2][:recursions],
        "sample": {"text": text, "depth": [1 + i % recursions for i in range(len(text))]},
    }


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *path, key = name.split(".")
        node = nested
        for part in path:
            node = node.setdefault(part, {})
        node[key] = value
    return nested


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., Path]:
    """write_study(name, [{"nll": 2.5, "model.kv": "shared", ...}, ...]) -> the study's folder.

    Keys with a dot are settings; `nll`, `size`, `budget`, `params`, `layers`, `routing` results.
    """

    def write(name: str, runs: list[dict[str, Any]], unfinished: int = 0) -> Path:
        ids = []
        for number, run in enumerate(runs):
            settings = {**DEFAULTS, **{k: v for k, v in run.items() if "." in k}}
            run_id = f"{name}-{number}"
            ids.append(run_id)
            result = {
                "schema": 1,
                "run_id": run_id,
                "status": "done",
                "model": run.get("model", settings["model.architecture"]),
                "size": run.get("size", "57k"),
                "budget": run.get("budget", 6e10),
                "convention": "paper",
                "seed": run.get("seed", 0),
                "n_params": 2 * run.get("params", 1e5),
                "n_params_nonembedding": run.get("params", 1e5),
                "unique_layers": run.get("layers", 12),
                "effective_layers": 32,
                "tokens": run.get("tokens", 5e5),
                "loss": {
                    "train": run["nll"] - 0.05,
                    "val_nll_causal": run["nll"],
                    "val_nll_topk": run["nll"] - 0.01,
                },
                "data": {"fingerprint": "f00d"},
                "routing": run.get("routing"),
                "settings": nest(settings),
            }
            folder = tmp_path / "runs" / run_id
            folder.mkdir(parents=True)
            (folder / "result.json").write_text(json.dumps({**result, **run.get("more", {})}))
        study = tmp_path / "studies" / name
        study.mkdir(parents=True)
        ids += [f"{name}-waiting-{number}" for number in range(unfinished)]
        (study / "plan.json").write_text(
            json.dumps(
                {
                    "schema": 1,
                    "study": name,
                    "runs": [{"run_id": i} for i in ids],
                    "runs_dir": "runs",
                }
            )
        )
        return study

    return write
