"""Which runs belong to one curve: those of a model that differ in the axes of a study only.

A study may sweep any setting. Runs of one model that differ in more than budget, size and seed are
other curves, and are named after what differs: `mor (n_recursions=2)`, `mor (n_recursions=3)`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from analysis.cautions import Caution, Code
from ledger.settings import differing, flatten

AXES = ("budget", "seed", "size.", "data.", "flops.")  # data and flops: refused when mixed
DATA = "data."

USUAL_ORDER = ("vanilla", "recursive", "mor", "mor_token")


def ordered(models: Sequence[str]) -> list[str]:
    """Known architectures in their usual order, then the others by name."""
    known = list(USUAL_ORDER)
    return sorted(models, key=lambda m: (known.index(m) if m in known else len(known), m))


def name_series(
    rows: list[dict[str, Any]], settings: dict[str, dict[str, Any]], corpora: bool = False
) -> list[Caution]:
    """Name the `curve` of each row, in place, by the settings that differ among its runs, and note
    these, as the command line takes them, in the row's `overrides`.

    A row's curve so far is its label, else its model, which stay as they are. `settings` holds each
    run's identity fields by run id; runs without them keep their name. With `corpora` those of
    several corpora or tokenizers, whose losses are in bits per byte, are curves of their own.
    Returns a note for each curve that was split.
    """
    known = {
        row["run_id"]: flatten(settings[row["run_id"]])
        for row in rows
        if settings.get(row["run_id"])
    }
    told = [row for row in rows if row["run_id"] in known]
    # What distinguishes a variant from the others of its model has to be typed with `model=`.
    for own in _groups(told, lambda row: str(row["model"])).values():
        apart = _differing([known[row["run_id"]] for row in own])
        for row in own:
            values = known[row["run_id"]]
            if apart:
                row["overrides"] = " ".join(f"{key}={values.get(key)}" for key in apart)
    _with_recipes(told, known)
    notes = []
    for name, own in _groups(told, lambda row: row.get("curve") or str(row["model"])).items():
        runs = [known[row["run_id"]] for row in own]
        apart = [*_differing(runs), *(_differing_data(runs) if corpora else ())]
        if not apart:
            continue
        for row in own:
            values = known[row["run_id"]]
            shown = ", ".join(f"{key.split('.')[-1]}={values.get(key)}" for key in apart)
            row["curve"] = f"{name} ({shown})"
        notes.append(
            Caution(
                Code.SPLIT_MODEL,
                f"The runs of {name} differ in {', '.join(apart)}: each combination is a curve "
                "of its own.",
                name,
            )
        )
    return notes


def _with_recipes(rows: list[dict[str, Any]], known: dict[str, dict[str, Any]]) -> None:
    """Where a model's runs follow one recipe, what it gives each size and budget is the recipe, in
    place of numbers that would make every run a curve of its own."""
    following = [row for row in rows if row.get("recipe")]
    for own in _groups(following, lambda row: f"{row['model']} {row['recipe']}").values():
        settings = [known[row["run_id"]] for row in own]
        places = _groups(own, lambda row: f"{row['size']} {row['budget']}").values()
        within = {key for rows in places for key in _differing([known[r["run_id"]] for r in rows])}
        for key in set(_differing(settings)) - within:
            if all(as_number(run.get(key)) is not None for run in settings):
                for row in own:
                    name = str(row["recipe"]).split("/")[-1]
                    known[row["run_id"]] = {**known[row["run_id"]], key: name}


def _groups(
    rows: list[dict[str, Any]], key: Callable[[dict[str, Any]], str]
) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _differing_data(runs: list[dict[str, Any]]) -> list[str]:
    """What distinguishes their data: its settings, or its fingerprint where they are the same."""
    found = [key for key in differing(runs) if key.startswith(DATA)]
    told = [key for key in found if key != f"{DATA}fingerprint"]
    return told or found


def _differing(runs: list[dict[str, Any]]) -> list[str]:
    return [key for key in differing(runs) if not key.startswith(AXES)]


def as_number(value: object) -> float | None:
    """A setting as a positive number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if 0 < found < float("inf") else None
