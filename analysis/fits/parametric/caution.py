"""The warnings of approach 3: what limits the use of a fitted law."""

import numpy as np
import pandas as pd

from analysis.cautions import Caution, Code
from analysis.fits.parametric.laws import Term
from analysis.fits.parametric.optimum import LawFit
from analysis.fits.parametric.profile import Profile
from analysis.fits.resample import Design, Intervals, Method
from analysis.formatting import compute, listing, plural

GONE = 1e-6  # of the loss, at every point
ILL = 1e5
SPREAD = 10  # times the typical residual: a run that is not of this law
STARTS_AGREE = 0.05
NOT_IDENTIFIED = "not identified: vary D/N"
FACTOR = 10  # between the ends of an interval of A, B or E


def cautions(
    fit: LawFit, found: Intervals, table: pd.DataFrame, seen: Profile | None
) -> list[Caution]:
    """One sentence each, the gravest first."""
    return [
        *_not_identified(seen),
        *_vanished(fit),
        *_certificate(fit),
        *_design(table, found),
        *_intervals(fit, found),
        *_strangers(fit, table),
    ]


def vanished(fit: LawFit) -> list[Term]:
    """The terms that the fit does without: they are nothing at every point."""
    law = fit.problem.law
    shares = law.term_shares(fit.theta[None])
    return [t for t, share in zip(law.terms, shares, strict=True) if share.max() < GONE]


def _not_identified(seen: Profile | None) -> list[Caution]:
    if seen is None or seen.identified:
        return []
    text = (
        f"The exponents are {NOT_IDENTIFIED}. {seen.why[0].upper()}{seen.why[1:]}; train some "
        "sizes on several times more and fewer tokens."
    )
    return [Caution(Code.NOT_IDENTIFIED, text, reason=f"{NOT_IDENTIFIED} ({seen.why})")]


def _vanished(fit: LawFit) -> list[Caution]:
    return [
        Caution(
            Code.TERM_VANISHED,
            f"{term.coefficient} has gone to zero: the points do not need that term, so neither "
            "it nor "
            f"its exponent is known; more spread in {term.told_by} would identify it.",
        )
        for term in vanished(fit)
    ]


def _certificate(fit: LawFit) -> list[Caution]:
    said = []
    if fit.certificate.condition > ILL:
        said.append(
            Caution(
                Code.WEAKLY_IDENTIFIED,
                f"Weakly identified: the condition number at the optimum is "
                f"{fit.certificate.condition:.1e}, so parameters trade off against each other; "
                "quote "
                "predictions, not parameters.",
            )
        )
    if fit.certificate.agree < STARTS_AGREE:
        said.append(
            Caution(
                Code.FEW_STARTS_AGREE,
                f"Only {fit.certificate.agree:.0%} of the polished starts end at the optimum: try "
                "more with --starts.",
            )
        )
    return said


def _design(table: pd.DataFrame, found: Intervals) -> list[Caution]:
    said = []
    budgets = table["budget"].dropna().unique()
    if len(budgets) == 1 and table["budget"].notna().all():
        said.append(
            Caution(
                Code.ONE_BUDGET,
                f"All points have one budget ({compute(float(budgets[0]))}): tokens follow from "
                "params, so alpha and beta rest on the shape of one curve.",
            )
        )
    for column in ("params", "tokens"):
        if table[column].nunique() <= 2:
            said.append(
                Caution(
                    Code.FEW_VALUES,
                    f"{column} takes only {plural(table[column].nunique(), 'value')}: "
                    "the exponent of a power law with a floor needs three.",
                )
            )
    groups = found.groups
    curves = table.groupby("params")["tokens"].nunique()
    if groups.design is Design.ROWS and table["trunk"].isna().all() and curves.median() >= 2:
        said.append(
            Caution(
                Code.TRUNKS_UNKNOWN,
                "Most sizes have several points and no column says which of them share a training "
                "run: if they do, the intervals are too narrow; name it, as in --columns "
                "trunk=params.",
            )
        )
    if groups.design is not Design.ROWS and groups.number < 10:
        said.append(
            Caution(
                Code.FEW_GROUPS,
                f"The intervals rest on {plural(groups.number, 'group')} ({groups.design}): "
                "too few to trust their width.",
            )
        )
    return said


def _intervals(fit: LawFit, found: Intervals) -> list[Caution]:
    if found.resamples == 0:
        return []
    if found.method is Method.NONE:
        return [
            Caution(
                Code.NO_INTERVAL,
                "No interval: most resamples hold no more distinct points than the law has "
                "parameters; add runs.",
            )
        ]
    said = []
    if found.used < found.resamples:
        said.append(
            Caution(
                Code.RESAMPLES_LEFT_OUT,
                f"{found.resamples - found.used} of {found.resamples} resamples held too few "
                "distinct "
                "points and were left out.",
            )
        )
    zero = [
        name
        for name in (term.exponent for term in fit.problem.law.terms if term.exponent)
        if (ends := found.of[name]) is not None and ends[0] <= 0 <= ends[1]
    ]
    if zero:
        said.append(
            Caution(
                Code.INTERVAL_HOLDS_ZERO,
                f"The interval of {' and of '.join(zero)} holds zero: the points do not show that "
                "the term is there at all.",
            )
        )
    wide = [
        name
        for name in fit.problem.law.in_logs
        if (ends := found.of[name]) is not None and ends[1] > FACTOR * ends[0]
    ]
    if wide:
        said.append(
            Caution(
                Code.WIDE_INTERVAL,
                f"{listing(wide)} {'is' if len(wide) == 1 else 'are'} known to no better than a "
                "factor "
                f"of {FACTOR} between the ends of the interval.",
            )
        )
    return said


def _strangers(fit: LawFit, table: pd.DataFrame) -> list[Caution]:
    residuals = fit.residuals
    typical = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals))))
    far = np.flatnonzero(np.abs(residuals) > max(SPREAD * typical, 0.02))
    if not len(far):
        return []
    names = table["run_id"].where(table["run_id"].notna(), table["source"])
    shown = [f"{names.iloc[row]} ({np.expm1(residuals[row]):+.0%})" for row in far]
    return [
        Caution(
            Code.OUTLIERS,
            f"{plural(len(far), 'point')} far from the law (more than {SPREAD} times the typical "
            f"residual), diverged perhaps; Huber limits their pull but they are in the fit: "
            f"{listing(shown)}.",
        )
    ]
