"""The tables of the paper: their columns, which runs are rows, and rows from runs.

A table's columns that say what a run *is* come first; the measured ones follow. Rows of the user's
runs stand in the order of the published rows where they are the same variant, then the others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from analysis.formatting import count
from analysis.paper.components import (
    ACTIVATION_CELLS,
    BALANCING_COEFFICIENTS,
    KV_WORDS,
    NONE,
    SAMPLING_COEFFICIENTS,
    architecture,
    kv_sharing,
    router_cells,
    sharing,
    unique_layers,
)
from analysis.paper.runs import Run
from analysis.reference import load_published

Row = dict[str, Any]
# Settings that make a run a row of a router's table.
EXPERT = {"model.router.type": "expert"}
TOKEN = {"model.router.type": "token"}
PAPER_MARK = " (paper)"


@dataclass(frozen=True)
class Column:
    """A column: its key in the CSV, its title, and how a measured number is written."""

    key: str
    title: str
    form: str | None = None

    @property
    def measured(self) -> bool:
        """Whether it is a result, not a description of the run."""
        return self.form is not None

    @property
    def is_loss(self) -> bool:
        """Whether a run always has it: a non-finite loss is a run that diverged."""
        return self.key.removesuffix(PAPER_MARK).endswith("_nll")

    def text(self, value: Any) -> str:
        """A cell: numbers of runs as the form says, text as it is, nothing as a dash."""
        if value is None or value == "":
            return NONE
        if value != value:
            return "nan" if self.is_loss else NONE
        if isinstance(value, str):
            return count(float(value)) if self.key == "n_nonemb" else value
        if self.form is not None:
            return format(value, self.form)
        return count(value) if self.key == "n_nonemb" else f"{value:g}"


@dataclass(frozen=True)
class Table:
    """One table of the paper."""

    name: str
    title: str
    study: str  # whose runs make it
    published: str  # its file in analysis/reference
    columns: tuple[Column, ...]
    row: Callable[[Run], Row | None]  # None: the run has no row in this table
    is_about: Callable[[tuple[Run, ...]], bool]  # whether runs of another study ask the same
    note: str = ""

    @property
    def keys(self) -> list[str]:
        """The columns by which a run and a published row are the same variant."""
        return [c.key for c in self.columns if not c.measured and c.key not in SHAPE]

    def published_rows(self) -> pd.DataFrame:
        """The rows as printed."""
        return load_published(self.published)[[c.key for c in self.columns]]

    def rows(self, runs: tuple[Run, ...]) -> pd.DataFrame:
        """A row for each run that belongs, seeds averaged, in the published order."""
        found = [row for run in runs if (row := self.row(run)) is not None]
        table = pd.DataFrame(found, columns=[c.key for c in self.columns], dtype=object)
        if table.empty:
            return table
        # What identifies a row as text: 3 and "3" are one recursion count.
        same = [c.key for c in self.columns if not c.measured]
        measured = [c.key for c in self.columns if c.measured]
        table[measured] = table[measured].astype(float)
        named = [key for key in same if key != "n_nonemb"]
        table[named] = table[named].map(lambda v: f"{v:g}" if isinstance(v, float | int) else v)
        table = table.groupby(same, sort=False, dropna=False)[measured].mean().reset_index()
        published = [tuple(row) for row in self.published_rows()[self.keys].to_numpy()]
        rank = [
            published.index(row) if row in published else len(published)
            for row in map(tuple, table[self.keys].to_numpy())
        ]
        if "base" in table:
            base = table["base"].map(table["n_nonemb"].astype(float).groupby(table["base"]).max())
        else:
            base = pd.Series(0.0, index=table.index)
        spent = table["flops_e18"].astype(float) if "flops_e18" in table else 0
        table = table.assign(at_base=base, rank=rank, less=-spent)
        in_order = table.sort_values(["at_base", "rank", "less"], kind="stable")
        return in_order.drop(columns=["at_base", "rank", "less"]).reset_index(drop=True)


# What a run of another scale has otherwise, though it is the same variant.
SHAPE = ("n_nonemb", "unique_layers", "base", "flops_e18", "tokens_b")


def _text(name: str, title: str) -> Column:
    return Column(name, title)


PARAMS = _text("n_nonemb", "Params (non-emb.)")
LAYERS = _text("unique_layers", "Unique layers")
RECURSIONS = _text("recursions", "Nr")
NLL = Column("val_nll", "Val. NLL", ".4f")
TRAIN_NLL = Column("train_nll", "Train NLL", ".4f")
ACCURACY = Column("avg", "Few-shot (%)", ".2f")


def _shape(run: Run) -> Row:
    return {
        "n_nonemb": run.params,
        "unique_layers": unique_layers(run),
        "recursions": run.recursions,
        "val_nll": run.nll,
        "train_nll": run.result.loss.get("train"),
        "avg": run.few_shot.get("avg"),
    }


def _main_row(run: Run) -> Row:
    routed = architecture(run).routed
    tasks = {task: run.few_shot.get(task) for task in TASKS}
    return {
        **_shape(run),
        **tasks,
        "model": run.architecture,
        "router": run.router if routed else NONE,
        "kv": KV_WORDS.get(run.setting("model.kv"), NONE) if routed else NONE,
        "flops_e18": f"{run.budget / 1e18:.3g}",
        "tokens_b": f"{run.tokens / 1e9:.3g}",
    }


def _sharing_row(run: Run) -> Row | None:
    if architecture(run).routed or kv_sharing(run) != NONE:
        return None
    return {**_shape(run), "base": run.size, "sharing": sharing(run)}


def _kv_row(run: Run) -> Row:
    return {
        **_shape(run),
        "model": run.architecture,
        "sharing": sharing(run),
        "router": run.router if architecture(run).routed else NONE,
        "kv_sharing": kv_sharing(run),
        "train_nll": run.nll,  # the published column holds one loss a run; ours is the validation's
    }


def _router(run: Run) -> Row:
    return {
        **_shape(run),
        "func": str(run.setting("model.router.activation")),
        "alpha": f"{float(run.setting('model.router.alpha', 0)):.1f}",
        "arch": str(run.setting("model.router.network")),
        "z_loss": "yes" if float(run.setting("model.router.z_coeff", 0)) > 0 else "no",
    }


def _coefficient(run: Run, setting: str | None) -> str:
    return NONE if setting is None else f"{float(run.setting(f'model.router.{setting}', 0)):g}"


def _expert_row(run: Run) -> Row | None:
    if not run.has(EXPERT):
        return None
    routing = run.routing
    sampling = str(run.setting("model.router.sampling"))
    accuracies = [a for a in routing.get("sampling_accuracy") or [] if a is not None]
    dead = routing.get("dead_token_ratio")
    cells = {
        **_router(run),
        "sampling": sampling,
        "coeff": _coefficient(run, SAMPLING_COEFFICIENTS.get(sampling)),
        "capacity_warmup": "yes" if run.setting("model.router.capacity_warmup_steps", 0) else "no",
        "dead_token_pct": None if dead is None else 100 * dead,
        "sampling_acc_pct": 100 * sum(accuracies) / len(accuracies) if accuracies else None,
    }
    return router_cells({**cells, **ACTIVATION_CELLS.get(cells["func"], {})})


def _token_row(run: Run) -> Row | None:
    if not run.has(TOKEN):
        return None
    routing = run.routing
    balancing = str(run.setting("model.router.balancing"))
    cells = {
        **_router(run),
        "balancing": balancing,
        "coeff": _coefficient(run, BALANCING_COEFFICIENTS.get(balancing)),
        "maxvio": routing.get("max_violation"),
        "entropy": routing.get("entropy"),
    }
    return router_cells(cells)


@cache
def _same_models() -> frozenset[str]:
    return frozenset(load_published("same_parameters_10b")["model"])


def _same_row(run: Run) -> Row | None:
    if run.architecture not in _same_models():
        return None
    return {**_shape(run), "model": run.architecture}


def _variants(row: Callable[[Run], Row | None], *keys: str) -> Callable[[tuple[Run, ...]], bool]:
    """Whether rows take several values of `keys`, those to which they do not apply left aside."""

    def several(runs: tuple[Run, ...]) -> bool:
        rows = (found for run in runs if (found := row(run)) is not None)
        values = {tuple(found[key] for key in keys) for found in rows}
        return len(values - {(NONE,) * len(keys)}) > 1

    return several


MAIN_KEYS = ("model", "router", "kv", "recursions", "flops_e18")


def _is_main(runs: tuple[Run, ...]) -> bool:
    """All three architectures at one size (several are an isoFLOP study), each variant once."""
    rows = [(*(_main_row(run)[key] for key in MAIN_KEYS), run.result.seed) for run in runs]
    one_size = len({run.size for run in runs}) == 1
    return one_size and len({run.architecture for run in runs}) == 3 and len(set(rows)) == len(rows)


def _is_same_parameters(runs: tuple[Run, ...]) -> bool:
    """Every vanilla run has a routed one of its unique parameters, to a few percent."""
    plain = [run for run in runs if not architecture(run).routed]
    vanilla = [run.params for run in plain if not architecture(run).shares_layers]
    routed = [run.params for run in runs if architecture(run).routed]
    near = [any(abs(other / size - 1) < 0.05 for other in routed) for size in vanilla]
    return bool(near) and all(near)


TASKS = ("lambada", "hellaswag", "piqa", "winogrande", "arc", "mmlu")
TASK_TITLES = ("LAMBADA", "HellaSwag", "PIQA", "WinoGrande", "ARC", "MMLU")

TABLES = (
    Table(
        "table_main",
        "Main results",
        "main_results",
        "main_results",
        (
            *(_text(key, key.capitalize()) for key in ("model", "router")),
            _text("kv", "KV"),
            RECURSIONS,
            PARAMS,
            _text("flops_e18", "FLOPs (1e18)"),
            _text("tokens_b", "Tokens (B)"),
            NLL,
            *(Column(k, title, ".1f") for k, title in zip(TASKS, TASK_TITLES, strict=True)),
            Column("avg", "Average (%)", ".1f"),
        ),
        _main_row,
        _is_main,
        note="FLOPs under the paper's convention (forward pass only).",
    ),
    Table(
        "table_sharing",
        "Parameter sharing",
        "sharing",
        "sharing_10b",
        (
            _text("base", "Base"),
            _text("sharing", "Sharing"),
            RECURSIONS,
            LAYERS,
            PARAMS,
            NLL,
            ACCURACY,
        ),
        _sharing_row,
        _variants(_sharing_row, "sharing"),
    ),
    Table(
        "table_kv_sharing",
        "Key-value sharing",
        "kv_sharing",
        "kv_sharing_10b",
        (
            _text("model", "Model"),
            _text("router", "Router"),
            _text("sharing", "Sharing"),
            RECURSIONS,
            _text("kv_sharing", "KV sharing"),
            LAYERS,
            PARAMS,
            Column("train_nll", "NLL", ".4f"),
            Column("avg", "Few-shot (%)", ".1f"),
        ),
        _kv_row,
        lambda runs: any(kv_sharing(run) != NONE for run in runs),
        note="NLL: validation loss of these runs, training loss in the paper.",
    ),
    Table(
        "table_router_expert",
        "Router ablations, expert choice",
        "router_expert",
        "router_expert_10b",
        (
            _text("sampling", "Sampling"),
            _text("coeff", "Coeff."),
            _text("func", "Function"),
            _text("alpha", "Alpha"),
            _text("arch", "Network"),
            _text("capacity_warmup", "Capacity warm-up"),
            _text("z_loss", "z-loss"),
            Column("dead_token_pct", "Dead tokens (%)", ".1f"),
            Column("sampling_acc_pct", "Sampling acc. (%)", ".1f"),
            NLL,
            Column("avg", "Few-shot (%)", ".1f"),
        ),
        _expert_row,
        _variants(_expert_row, "sampling", "coeff", "func", "alpha", "arch", "z_loss"),
        note="Sampling accuracy: mean over the recursions that select. nan: diverged.",
    ),
    Table(
        "table_router_token",
        "Router ablations, token choice",
        "router_token",
        "router_token_10b",
        (
            _text("balancing", "Balancing"),
            _text("coeff", "Coeff."),
            _text("func", "Function"),
            _text("alpha", "Alpha"),
            _text("arch", "Network"),
            _text("z_loss", "z-loss"),
            Column("maxvio", "MaxVio", ".3f"),
            Column("entropy", "Entropy (nats)", ".3f"),
            NLL,
            Column("avg", "Few-shot (%)", ".1f"),
        ),
        _token_row,
        _variants(_token_row, "balancing", "coeff", "func", "alpha", "arch", "z_loss"),
    ),
    Table(
        "table_same_parameters",
        "Equal unique parameters",
        "same_parameters",
        "same_parameters_10b",
        (_text("model", "Model"), RECURSIONS, LAYERS, PARAMS, TRAIN_NLL, NLL, ACCURACY),
        _same_row,
        _is_same_parameters,
    ),
)
