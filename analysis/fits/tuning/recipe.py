"""The recipe file of a tune study: its laws, and what is known of how sure they are."""

from dataclasses import dataclass

import numpy as np

from analysis.cautions import Caution, Code
from analysis.fits.parabola import Floats
from analysis.fits.tuning.cells import TuneTable
from analysis.fits.tuning.fit import CurveTuning, Tuned
from analysis.fits.tuning.law import Law
from analysis.formatting import listing
from ledger.recipe import BATCH, PowerLaw, Recipe
from ledger.tuning import ModelTuning

TAIL = 0.5  # percent of the draws on either side that are drawn in: theirs are not normal


@dataclass(frozen=True)
class Written:
    """The recipe, None where no law could be written; and what is left out of it."""

    recipe: Recipe | None
    warnings: tuple[Caution, ...]


def recipe_of(
    tuned: Tuned, table: TuneTable, name: str, source: str, params: str = "nonembedding"
) -> Written:
    """The laws of each model that has one curve with an optimum; `params` is what N counts."""
    models: dict[str, dict[str, PowerLaw]] = {}
    tuning: dict[str, ModelTuning] = {}
    said: list[Caution] = []
    with_laws = [curve for curve in tuned.curves.values() if curve.laws]
    for curve in with_laws:
        variants = [other.curve for other in with_laws if other.model == curve.model]
        if len(variants) > 1:
            if curve.curve == variants[0]:
                said.append(_variants(curve.model, variants))
            continue
        laws = {law.setting: _law(law, table.seq_len[curve.curve]) for law in curve.laws}
        kept = {setting: law for setting, law in laws.items() if law is not None}
        if kept:
            models[curve.model] = kept
        if (found := _tuning(curve, table)) is not None:
            tuning[curve.model] = found
    if not models:
        return Written(None, tuple(said))
    cells = [one.cell for curve in with_laws if curve.model in models for one in curve.enclosed]
    places = {
        "params": (min(c.params for c in cells), max(c.params for c in cells)),
        "tokens": (min(c.tokens for c in cells), max(c.tokens for c in cells)),
    }
    recipe = Recipe(name, source, params, models=models, fitted=places, tuning=tuning)
    return Written(recipe, tuple(said))


def _variants(model: str, variants: list[str]) -> Caution:
    return Caution(
        Code.SPLIT_MODEL,
        f"{model} has several curves ({listing(variants)}), and a recipe holds one law for a "
        "model: none is written for it. Keep one of them with --where SETTING=VALUE.",
        model,
    )


def _law(law: Law, seq_len: float | None) -> PowerLaw | None:
    if law.setting != BATCH:
        return PowerLaw(law.c, law.a, law.b)
    return None if seq_len is None else PowerLaw(law.c * seq_len, law.a, law.b)


def _tuning(curve: CurveTuning, table: TuneTable) -> ModelTuning | None:
    """None where the noise is unknown."""
    drawn = [law.draws for law in curve.laws if law.draws is not None]
    if len(drawn) < len(curve.laws):
        return None
    joint = np.concatenate(drawn, axis=1)
    joint = np.clip(joint, *np.percentile(joint, [TAIL, 100 - TAIL], axis=0))
    bends = [one.curvature for one in curve.enclosed if one.curvature is not None]
    mean = np.mean(bends, axis=0)
    return ModelTuning(
        tuple(law.setting for law in curve.laws),
        curve.laws[0].centre,
        tuple((float(np.log(law.value)), law.a, law.b) for law in curve.laws),
        _rows(np.atleast_2d(np.cov(joint, rowvar=False))),
        _rows(mean),
        tuple(float(value) for value in curve.skew),
        _spread(curve, mean),
        _tried(curve),
        table.conditions[curve.curve],
    )


def _spread(curve: CurveTuning, mean: Floats) -> float:
    """Standard deviation of the curvature over sizes and resamples, as a share of its mean."""
    drawn = []
    for one in curve.enclosed:
        if one.curvature_draws is not None:
            steep = np.trace(one.curvature_draws, axis1=1, axis2=2)
            drawn.append(steep[np.isfinite(steep)])
    low, high = np.percentile(np.concatenate(drawn), [16, 84])
    return float(0.5 * (high - low) / np.trace(mean))


def _tried(curve: CurveTuning) -> tuple[tuple[float, float], ...]:
    """How far from the optimum every cell's quadratic was fitted, of each setting."""
    found = []
    for k in range(len(curve.laws)):
        lows, highs = [], []
        for one in curve.enclosed:
            assert one.valley is not None
            assert one.values is not None
            away = one.cell.values[one.valley.rows, k] - np.log(one.values[k])
            lows.append(away.min())
            highs.append(away.max())
        found.append((float(max(lows)), float(min(highs))))
    return tuple(found)


def _rows(matrix: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)
