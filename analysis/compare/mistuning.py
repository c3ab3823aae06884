"""The tuning certificate: how far each run's recipe is from the best one, in units of its loss, and
how much of a gap between models that can explain.

A tune study knows the best settings at a size and a number of tokens and how steeply the loss rises
around them (`ledger.tuning`). What a run loses by its own settings follows with a 95 % interval:
from the law's uncertainty, and from how much the curvature varies. A run is *untuned* where no tune
study speaks of it: another setting differs, or its rate lies further from the optimum than any that
was tried.

Were both models tuned, the one that is ahead would lead by less by what the other gains, and by
more by what it gains itself. So mistuning explains at most the upper end (of a 95 % interval) of
the difference, each side at the sizes around its best one: the largest loss of the one behind, the
smallest of the one ahead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.cautions import Caution, Code
from analysis.compare.equal_compute import Compared, Comparison
from analysis.errors import AnalysisError
from analysis.fits import bootstrap
from analysis.fits.isoflop import IsoflopResult
from analysis.fits.parabola import Floats
from analysis.fits.tuning.cells import NOT_CONDITIONS
from analysis.formatting import listing, plural
from analysis.points.series import as_number
from analysis.points.table import curve_of
from ledger.errors import UserError
from ledger.recipe import PARAMS, Recipe, read_recipe
from ledger.tuning import ModelTuning

COLUMNS = ("settings", "recipe")  # that the points need
DRAWS = 2000
SLACK = 1e-6  # of a logarithm
NOTHING = "no tune study is known"

Interval = tuple[float, float]


@dataclass(frozen=True)
class Certificate:
    """One run: what it loses by its recipe, in units of its loss; None where it is untuned."""

    run_id: str
    curve: str
    budget: float
    params: float
    away: Mapping[str, float]  # setting -> the run's value over the best one
    lost: float | None
    interval: Interval | None
    reason: str = ""  # why it is untuned
    note: str = ""  # where the law is used outside of what it was fitted on
    draws: Floats | None = field(default=None, compare=False, repr=False)  # of `lost`, (DRAWS,)

    @property
    def tuned(self) -> bool:
        return self.interval is not None

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints of it."""
        found = {name: value for name, value in vars(self).items() if name != "draws"}
        return {**found, "tuned": self.tuned}


@dataclass(frozen=True)
class Mistuning:
    """One comparison: what each side loses at its best size, and how much of the gap that is."""

    model: str
    budget: float
    lost: Interval | None
    baseline_lost: Interval | None
    explains_at_most: float | None  # of the gap, in units of the loss; None: untuned
    reason: str = ""


@dataclass(frozen=True)
class Tuning:
    """What is known of the recipes of some points."""

    certificates: tuple[Certificate, ...]
    comparisons: tuple[Mistuning, ...]
    warnings: tuple[Caution, ...]

    def of(self, row: Comparison) -> Mistuning:
        """The entry of a comparison."""
        return next(m for m in self.comparisons if (m.model, m.budget) == (row.model, row.budget))


def tuning_of(
    done: Compared,
    result: IsoflopResult,
    table: pd.DataFrame,
    file: Path | None = None,
    params: str = "nonembedding",
) -> Tuning:
    """Certificates of all runs, and what mistuning explains of each comparison.

    `file` is the recipe to judge by; without it each run is judged by the recipe that it followed,
    where that is a file that a tune study wrote. `params` is what the points' sizes count. Raises
    AnalysisError where `file` is none.
    """
    recipes = _Recipes(file, params)
    rows = [{str(k): v for k, v in row.items()} for row in _known(table).to_dict("records")]
    certificates = tuple(certify(row, *recipes.of(row)) for row in rows)
    compared = tuple(
        _explained(row, done.baseline, result, certificates) for row in done.comparisons
    )
    return Tuning(certificates, compared, tuple(_warnings(certificates, rows)))


def _known(table: pd.DataFrame) -> pd.DataFrame:
    missing = {name: None for name in COLUMNS if name not in table}
    return table.assign(curve=curve_of(table), **missing)


class _Recipes:
    """The recipe that judges a run, or why there is none; each file is read once."""

    def __init__(self, file: Path | None, params: str) -> None:
        self._params = params
        self._forced = _read(file) if file is not None else None
        if self._forced is not None and not self._forced.tuning:
            raise AnalysisError(
                f"--recipe {file} has laws and no tuning: it gives no distance from an optimum; "
                "give one that python -m analysis tune wrote."
            )
        self._read: dict[str, Recipe | None] = {}

    def of(self, row: Mapping[str, Any]) -> tuple[Recipe | None, str]:
        if self._forced is not None:
            return self._counted(self._forced)
        name = row.get("recipe")
        if not isinstance(name, str):
            return None, NOTHING
        if name not in self._read:
            file = Path(name)
            try:
                self._read[name] = read_recipe(file) if file.is_file() else None
            except UserError:
                self._read[name] = None
        found = self._read[name]
        if found is None or not found.tuning:
            return None, f"recipe {file_name(name)} is not from a tune study"
        return self._counted(found)

    def _counted(self, recipe: Recipe) -> tuple[Recipe | None, str]:
        if self._params in PARAMS and recipe.params != self._params:
            reason = f"recipe {recipe.name} counts {recipe.params} parameters, the points do not"
            return None, f"{reason} (--params {recipe.params})"
        return recipe, ""


def file_name(recipe: str) -> str:
    return recipe.rsplit("/", 1)[-1]


def _read(file: Path) -> Recipe:
    try:
        return read_recipe(file)
    except UserError as error:
        raise AnalysisError(f"--recipe {error}.") from error


def certify(row: Mapping[str, Any], recipe: Recipe | None, why_not: str = "") -> Certificate:
    """The certificate of one point by a recipe."""
    blank = Certificate(
        str(row["run_id"]), str(row["curve"]), float(row["budget"]), float(row["params"]), {}, None,
        None, why_not,
    )  # fmt: skip
    if recipe is None:
        return blank
    tuning = recipe.tuning.get(str(row["model"]))
    if tuning is None:
        return _untuned(blank, f"recipe {recipe.name} has no tuning of {row['model']}")
    settings = row["settings"]
    if not isinstance(settings, dict) or not settings:
        return _untuned(blank, "the point does not give its settings")
    other = _other_conditions(settings, tuning)
    if other:
        return _untuned(blank, other)
    return _measured(blank, row, tuning, recipe)


def _untuned(blank: Certificate, reason: str) -> Certificate:
    return Certificate(
        blank.run_id, blank.curve, blank.budget, blank.params, {}, None, None, reason
    )


def _other_conditions(settings: Mapping[str, Any], tuning: ModelTuning) -> str:
    """The first setting in which the run is not as those that were tuned."""
    for key in sorted({*settings, *tuning.conditions}):
        if key.startswith(NOT_CONDITIONS) and key != "data.fingerprint":
            continue
        if key in tuning.settings or (key in tuning.conditions and tuning.conditions[key] is None):
            continue
        own, tuned = settings.get(key), tuning.conditions.get(key)
        alike = as_number(own) is not None and as_number(own) == as_number(tuned)
        if own != tuned and not alike:
            return f"tuned with {key}={_shown(tuned)}, run with {_shown(own)}"
    return ""


def _shown(value: object) -> str:
    return "its default" if value is None else str(value)


def _measured(
    blank: Certificate, row: Mapping[str, Any], tuning: ModelTuning, recipe: Recipe
) -> Certificate:
    values = [as_number(row["settings"].get(name)) for name in tuning.settings]
    if any(value is None for value in values):
        return _untuned(blank, f"the point does not give {listing(tuning.settings)}")
    x = np.log(np.array(values, float))
    n0, d0 = tuning.centre
    place = np.array([1.0, -np.log(row["params"] / n0), -np.log(row["tokens"] / d0)])
    best = np.array(tuning.best)
    off = x - best @ place
    away = {name: float(np.exp(d)) for name, d in zip(tuning.settings, off, strict=True)}
    for name, d, (low, high) in zip(tuning.settings, off, tuning.tried, strict=True):
        if not low - SLACK <= d <= high + SLACK:
            return Certificate(
                blank.run_id, blank.curve, blank.budget, blank.params, away, None, None,
                f"{name} is {np.exp(d):.2g} x the best, and {np.exp(low):.2g} to "
                f"{np.exp(high):.2g} x it were tried",
            )  # fmt: skip
    rng = bootstrap.generator(str(row["model"]), 0)  # the same law for all runs of a model
    covariance = np.array(tuning.covariance)
    drawn = rng.multivariate_normal(best.ravel(), covariance, DRAWS, check_valid="ignore")
    offs = x - drawn.reshape(DRAWS, len(x), 3) @ place
    steeper = np.exp(tuning.curvature_spread * rng.standard_normal(DRAWS))
    relative = steeper * _rise(offs, tuning)
    here = float(_rise(off[None], tuning)[0])
    # the point's loss is the best one times 1 + here
    unit = float(row["loss"]) / (1 + here)
    low, high = np.percentile(relative, [2.5, 97.5])
    outside = recipe.outside(float(row["params"]), float(row["tokens"]))
    note = f"{' and '.join(outside)} outside of what the law was fitted on" if outside else ""
    return Certificate(
        blank.run_id, blank.curve, blank.budget, blank.params, away, unit * here,
        (float(unit * max(0.0, low)), float(unit * max(low, high))), "", note, unit * relative,
    )  # fmt: skip


def _rise(offs: Floats, tuning: ModelTuning) -> Floats:
    """How much the loss rises by distances (R, settings) from the best, as a share of it."""
    bend, skew = np.array(tuning.curvature), np.array(tuning.skew)
    rise = 0.5 * np.einsum("ri,ij,rj->r", offs, bend, offs) + offs**3 @ skew
    return np.asarray(np.maximum(rise, 0.0))


def _explained(
    row: Comparison, baseline: str, result: IsoflopResult, found: tuple[Certificate, ...]
) -> Mistuning:
    sides: list[Interval | None] = []
    draws: list[Floats] = []
    reasons = []
    ahead = row.gap < 0
    for curve, leads in ((row.model, ahead), (baseline, not ahead)):
        near = _near_best(curve, row.budget, result, found)
        untuned = [one for one in near if not one.tuned]
        if untuned or not near:
            reasons.append(f"{curve}: {untuned[0].reason if untuned else NOTHING}")
            sides.append(None)
            continue
        ends = [one.interval for one in near if one.interval is not None]
        sides.append((min(low for low, _ in ends), max(high for _, high in ends)))
        each = np.stack([one.draws for one in near if one.draws is not None])
        draws.append(each.min(axis=0) if leads else each.max(axis=0))
    own, other = sides
    most = None
    if len(draws) == 2:
        more = draws[1] - draws[0] if ahead else draws[0] - draws[1]
        most = max(0.0, float(np.percentile(more, 97.5)))
    return Mistuning(row.model, row.budget, own, other, most, "; ".join(reasons))


def _near_best(
    curve: str, budget: float, result: IsoflopResult, found: tuple[Certificate, ...]
) -> list[Certificate]:
    """The runs at the sizes on either side of a curve's best one."""
    [minimum] = [m for m in result.models[curve].minima if m.budget == budget]
    best = minimum.lowest_params if minimum.params is None else minimum.params
    own = [one for one in found if one.curve == curve and one.budget == budget]
    below = [one.params for one in own if one.params <= best * (1 + SLACK)]
    above = [one.params for one in own if one.params >= best * (1 - SLACK)]
    sizes = {*([max(below)] if below else []), *([min(above)] if above else [])}
    return [one for one in own if one.params in sizes]


def _warnings(found: tuple[Certificate, ...], rows: list[dict[str, Any]]) -> list[Caution]:
    said = []
    untuned = [one for one in found if not one.tuned]
    mixed = 0 < len(untuned) < len(found)
    if untuned:
        reasons: dict[str, list[str]] = {}
        for one in untuned:
            reasons.setdefault(one.reason, []).append(one.curve)
        told = "; ".join(
            f"{listing(dict.fromkeys(curves))} ({plural(len(curves), 'run')}): {reason}"
            for reason, curves in list(reasons.items())[:4]
        )
        if mixed:
            tuned = [one.curve for one in found if one.tuned]
            text = (
                f"Points mix tuned and untuned recipes: tuned {listing(dict.fromkeys(tuned))} "
                f"({plural(len(tuned), 'run')}), untuned {told}."
            )
            said.append(Caution(Code.MIXED_RECIPES, text))
        else:
            text = f"Untuned: {told}. A gap holds what each model loses by its recipe."
            said.append(Caution(Code.UNTUNED, text))
    followed = {str(row["recipe"]) if isinstance(row["recipe"], str) else "" for row in rows}
    if len(followed) > 1 and not mixed:
        names = [f"recipe {file_name(name)}" if name else "none" for name in sorted(followed)]
        text = f"Points of several recipes: {listing(names)}."
        said.append(Caution(Code.MIXED_RECIPES, text))
    beyond = [one for one in found if one.note]
    if beyond:
        text = (
            f"The tuning of {plural(len(beyond), 'run')} is extrapolated ({beyond[0].run_id}: "
            f"{beyond[0].note})."
        )
        said.append(Caution(Code.EXTRAPOLATED, text))
    return said


def words(found: Mistuning, gap: float, clause: bool = False) -> str:
    """What a verdict adds: how much of its gap mistuning can explain, or untuned; as a `clause`
    that follows the gap, or as a sentence."""
    most = found.explains_at_most
    if most is None:
        return "untuned"
    if most >= abs(gap):
        return f"mistuning (at most {most:.2g}) can explain all of it"
    said = f"mistuning can explain at most {most:.2g}"
    return f"of which {said}" if clause else f"{said} of it"
