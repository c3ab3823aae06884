"""The forecasts of a study, scored, as the page shows them."""

from dataclasses import dataclass

from analysis.errors import AnalysisError
from analysis.fits.isoflop import IsoflopResult
from analysis.forecast import record
from analysis.forecast.score import Calibration, Scored, calibration, score
from analysis.formatting import compute, count
from analysis.points.table import PointSet


@dataclass(frozen=True)
class Shown:
    """One forecast file, or the reason why it cannot be scored."""

    name: str
    made: str
    level: str
    rows: tuple[tuple[str, ...], ...]
    total: str
    notes: tuple[str, ...]


def forecasts(points: PointSet, result: IsoflopResult) -> list[Shown]:
    """Every forecast of the points' study, newest first; none for points from elsewhere."""
    files = record.files_of(points.study_folder) if points.study_folder else []
    shown = []
    for file in reversed(files):
        try:
            content, done = record.read(file)
            if content["loss"] != points.loss:
                raise AnalysisError(
                    f"It is about the loss {content['loss']} and this page about {points.loss}: "
                    f"report with --loss {content['loss']} scores it."
                )
            rows, said = score(content, done, points, result)
        except AnalysisError as error:
            shown.append(Shown(file.name, "", "", (), "", (str(error),)))
            continue
        level = f"{done.level:.0%}"
        total = total_of(calibration(rows), level)
        cells = tuple(tuple(cells_of(row)) for row in rows)
        notes = tuple(w.text for w in said)
        shown.append(Shown(file.name, str(content["made"]), level, cells, total, notes))
    return shown


def cells_of(row: Scored) -> list[str]:
    """what, model, budget, predicted, interval, measured, z, verdict: as text for a table."""

    def told(value: float) -> str:
        if row.what == "N_opt":
            return count(value)
        return f"{value:+.4f}" if row.what.startswith("gap") else f"{value:.4f}"

    ends = f"{told(row.interval[0])} to {told(row.interval[1])}" if row.interval else "-"
    measured = "-" if row.measured is None else told(row.measured)
    z = "-" if row.z is None else f"{row.z:+.1f}"
    verdict = (row.reason or "no interval") if row.hit is None else "hit" if row.hit else "missed"
    budget = compute(row.budget)
    return [row.what, row.model, budget, told(row.predicted), ends, measured, z, verdict]


def total_of(found: Calibration, levels: str) -> str:
    """How the intervals have done, in a sentence."""
    if not found.number:
        return "No interval of a forecast has been tested by a new point yet."
    z = f", z {found.z_rms:.2f} rms" if found.z_rms is not None else ""
    return f"{found.hits} of {found.number} inside their {levels} intervals{z}."
