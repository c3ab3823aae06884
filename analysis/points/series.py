"""Which runs belong to one curve: those of a model that differ in the axes of a study only.

A study may sweep any setting. Runs of one model that differ in more than budget, size and seed are
other curves, and are named after what differs: `mor (n_recursions=2)`, `mor (n_recursions=3)`.
"""

from collections.abc import Sequence
from typing import Any

AXES = ("budget", "seed", "size.", "data.", "flops.")  # data and flops: refused when mixed

USUAL_ORDER = ("vanilla", "recursive", "mor", "mor_token")


def ordered(models: Sequence[str]) -> list[str]:
    """Known architectures in their usual order, then the others by name."""
    known = list(USUAL_ORDER)
    return sorted(models, key=lambda m: (known.index(m) if m in known else len(known), m))


def name_series(rows: list[dict[str, Any]], settings: dict[str, dict[str, Any]]) -> list[str]:
    """Rename the model of each row, in place, by the settings that differ among its runs, and note
    these, as the command line takes them, in the row's `curve`.

    `settings` holds each run's identity fields by run id; runs without them keep their name.
    Returns a note for each model that was split.
    """
    notes = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model and settings.get(row["run_id"])]
        flat = {row["run_id"]: flatten(settings[row["run_id"]]) for row in own}
        differing = _differing(list(flat.values()))
        if not differing:
            continue
        for row in own:
            values = flat[row["run_id"]]
            shown = ", ".join(f"{key.split('.')[-1]}={values.get(key)}" for key in differing)
            row["model"] = f"{model} ({shown})"
            row["curve"] = " ".join(f"{key}={values.get(key)}" for key in differing)
        notes.append(
            f"The runs of {model} differ in {', '.join(differing)}: each combination is a curve "
            "of its own."
        )
    return notes


def _differing(runs: list[dict[str, Any]]) -> list[str]:
    keys = sorted({key for run in runs for key in run if not key.startswith(AXES)})
    return [key for key in keys if len({repr(run.get(key)) for run in runs}) > 1]


def flatten(settings: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{path}{key}.")
        else:
            flat[f"{path}{key}"] = value
    return flat
