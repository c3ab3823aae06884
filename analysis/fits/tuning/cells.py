"""The runs of a tune study by (model, size, budget), with the settings that vary within these."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import AnalysisError
from analysis.fits.parabola import Floats
from analysis.formatting import listing, plural
from analysis.points.series import AXES, as_number
from ledger.settings import differing

MOST = 2  # settings that one fit can hold
# Where they differ the runs measure the same thing all the same.
NOT_CONDITIONS = (*AXES, "train.val_tokens")


@dataclass(frozen=True)
class Cell:
    """The runs of one model, size and budget: `values` (runs, settings) as logarithms."""

    model: str
    size: str
    budget: float
    params: float
    tokens: float  # geometric mean: batches round it
    values: Floats
    loss: Floats  # (runs,) nats per token
    trunk: NDArray[np.intp]

    def tried(self, setting: int) -> Floats:
        """The different values of a setting, ascending, as they are typed."""
        return np.unique(np.round(np.exp(self.values[:, setting]), 12))


@dataclass(frozen=True)
class TuneTable:
    """Cells by curve: a model, or one of its variants where runs differ in more than what is
    swept. `conditions` are the settings of each curve's runs; None where these differ."""

    over: tuple[str, ...]
    cells: dict[str, list[Cell]]
    models: dict[str, str]  # curve -> model, as `model=` takes it
    conditions: dict[str, dict[str, Any]]
    seq_len: dict[str, float | None]


def tune_table(
    table: pd.DataFrame, over: Sequence[str] = (), where: Mapping[str, str] | None = None
) -> TuneTable:
    """Sort the runs into cells. `over` names the swept settings (default: the numbers that vary
    within a model, size and budget), `where` keeps the runs with these values only.

    `table` needs the columns settings (a dict of dotted names) and trunk. Raises AnalysisError
    where nothing is swept, a named setting is not, or more than two are.
    """
    known = table[[isinstance(s, dict) and bool(s) for s in table["settings"]]]
    if known.empty:
        raise AnalysisError(
            "The points do not have the settings of their runs: give a study or a run store."
        )
    rows = _kept(known, where or {})
    found = _swept(rows)
    asked = tuple(over) or tuple(found)
    _check_over(asked, rows, found)
    curves: dict[str, list[dict[str, Any]]] = {}
    models: dict[str, str] = {}
    for model, own in _by(rows, ("model",)).items():
        names = _variant_settings(own, asked)
        for row in own:
            told = ", ".join(f"{n.split('.')[-1]}={row['settings'].get(n)}" for n in names)
            curve = f"{model[0]} ({told})" if told else str(model[0])
            curves.setdefault(curve, []).append(row)
            models[curve] = str(model[0])
    trunks = {name: i for i, name in enumerate(sorted({_trunk(row) for row in rows}))}
    cells = {name: _cells(name, own, asked, trunks) for name, own in sorted(curves.items())}
    return TuneTable(
        asked,
        {name: own for name, own in cells.items() if own},
        models,
        {name: _conditions(own, asked) for name, own in curves.items()},
        {name: _only(own, "train.seq_len") for name, own in curves.items()},
    )


def _kept(table: pd.DataFrame, where: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    for setting, wanted in where.items():
        values = sorted({str(row["settings"].get(setting)) for row in rows})
        rows = [row for row in rows if _same(row["settings"].get(setting), wanted)]
        if not rows:
            raise AnalysisError(
                f"--where {setting}={wanted}: no run has it; the values are {listing(values, 8)}."
            )
    return rows


def _same(value: object, wanted: str) -> bool:
    one, other = as_number(value), as_number(wanted)
    return one == other if one is not None and other is not None else str(value) == wanted


def _by(
    rows: Iterable[dict[str, Any]], keys: tuple[str, ...]
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


PLACE = ("model", "size", "budget")


def _swept(rows: list[dict[str, Any]]) -> list[str]:
    """Settings that are numbers and vary within a model, size and budget."""
    found: dict[str, None] = {}
    for own in _by(rows, PLACE).values():
        for name in _differing(own):
            if all(as_number(row["settings"].get(name)) is not None for row in own):
                found[name] = None
    return list(found)


def _differing(rows: list[dict[str, Any]]) -> list[str]:
    names = differing([row["settings"] for row in rows])
    return [name for name in names if not name.startswith(NOT_CONDITIONS)]


def _check_over(asked: tuple[str, ...], rows: list[dict[str, Any]], found: list[str]) -> None:
    for name in asked:
        values = {repr(row["settings"].get(name)) for row in rows}
        if not any(name in row["settings"] for row in rows):
            raise AnalysisError(
                f"--over {name}: the runs have no such setting; those that vary: "
                f"{listing(found, 8) or 'none'}."
            )
        if name not in found:
            what = f"is {next(iter(values))}" if len(values) == 1 else "does not vary"
            raise AnalysisError(
                f"--over {name}: it {what} in all runs of one model, size and budget; type "
                f"{name}=<three values or more> behind the command that launched the study."
            )
    if not asked:
        first = rows[0]["settings"]
        rate = first.get("train.lr", "unknown")
        raise AnalysisError(
            f"Nothing is swept: in {plural(len(rows), 'run')} no number varies within one model, "
            f"size and budget (train.lr is {rate}); launch the study with "
            "train.lr_factor=0.25,0.5,1,2,4."
        )
    if len(asked) > MOST:
        raise AnalysisError(
            f"{len(asked)} settings vary ({listing(asked, 8)}), and {MOST} at most are fitted: "
            f"name them with --over {asked[0]}, and keep one value of the others with --where "
            f"{asked[-1]}=<value>."
        )


def _variant_settings(rows: list[dict[str, Any]], over: tuple[str, ...]) -> list[str]:
    """What distinguishes variants of a model: what differs and is not swept. A number that only
    goes with size and budget, as a recipe's batch does, distinguishes none."""
    within = {name for own in _by(rows, PLACE).values() for name in _differing(own)}
    follows = {
        name
        for name in _differing(rows)
        if name not in within and all(as_number(r["settings"].get(name)) is not None for r in rows)
    }
    return [name for name in _differing(rows) if name not in over and name not in follows]


def _cells(
    curve: str, rows: list[dict[str, Any]], over: tuple[str, ...], trunks: Mapping[str, int]
) -> list[Cell]:
    cells = []
    for (_, size, budget), own in _by(rows, PLACE).items():
        usable = [r for r in own if all(as_number(r["settings"].get(n)) for n in over)]
        if not usable:
            continue
        values = [[np.log(float(r["settings"][name])) for name in over] for r in usable]
        cells.append(
            Cell(
                curve,
                str(size),
                float(budget),
                float(np.median([r["params"] for r in usable])),
                float(np.exp(np.mean(np.log([r["tokens"] for r in usable])))),
                np.array(values),
                np.array([float(r["loss"]) for r in usable]),
                np.array([trunks[_trunk(r)] for r in usable], np.intp),
            )
        )
    return sorted(cells, key=lambda cell: (cell.params, cell.budget))


def _trunk(row: dict[str, Any]) -> str:
    trunk = row.get("trunk")
    return trunk if isinstance(trunk, str) else f"own {row['run_id']}"


def _conditions(rows: list[dict[str, Any]], over: tuple[str, ...]) -> dict[str, Any]:
    first = rows[0]["settings"]
    varying = {*_differing(rows), *over}
    kept = {k: v for k, v in first.items() if not k.startswith(NOT_CONDITIONS)}
    kept |= {k: v for k, v in first.items() if k == "data.fingerprint"}
    return {k: None if k in varying else v for k, v in kept.items()}


def _only(rows: list[dict[str, Any]], name: str) -> float | None:
    values = {as_number(row["settings"].get(name)) for row in rows}
    return values.pop() if len(values) == 1 else None
