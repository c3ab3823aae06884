"""docs/table9.md quotes numbers: they are what the code says today."""

from pathlib import Path

import pytest

from analysis.compare.equal_compute import compare
from analysis.fits.envelope import fit_envelope
from analysis.fits.isoflop import fit_isoflop
from analysis.fits.parametric.lawfit import Asked, report
from analysis.fits.parametric.laws import Chinchilla
from analysis.reference import load_table9

DOC = Path(__file__).parents[3] / "docs" / "table9.md"


@pytest.fixture(scope="module")
def said() -> str:
    return " ".join(DOC.read_text().split())


@pytest.fixture(scope="module")
def isoflop():
    return fit_isoflop(load_table9().table)


def test_minima_and_exponent(said, isoflop):
    mor = isoflop.models["mor"]
    for minimum in mor.minima:
        assert f"{minimum.loss:.4f}" in said
    low, high = mor.params_law.interval
    assert f"C^{mor.params_law.exponent:.3f}, nominal interval {low:.3f} to {high:.3f}" in said
    narrow = fit_isoflop(load_table9().table, window=1, resamples=0).models["mor"]
    assert f"the same runs give {narrow.params_law.exponent:.3f}" in said


def test_gaps_and_multipliers(said, isoflop):
    rows = [c for c in compare(isoflop, "vanilla").comparisons if c.model == "mor"]
    gaps = ", ".join(f"{c.measured_gap:+.4f} at {c.budget:.3g}" for c in rows)
    assert gaps.replace("e+", "e") in said
    assert f"at {rows[0].multiplier:.2f} x 2e18" in said
    assert f"{rows[1].multiplier:.2f} x 5e18" in said
    low, high = rows[2].gap_interval
    assert f"minima {rows[2].gap:+.4f} for MoR, interval {low:+.4f} to {high:+.4f}" in said


def test_parametric_laws(said):
    table = load_table9().table
    for model, name in (("vanilla", "vanilla"), ("recursive", "recursive"), ("mor", "MoR")):
        rows = table[table["model"] == model]
        rows = rows.assign(trunk=rows["size"])
        done = report(Chinchilla.of(rows), rows, Asked())
        low, high = done.intervals.of["a"]
        values = done.fit.values
        assert f"| {name} | {values['alpha']:.3f} |" in said
        assert f"| {values['a']:.3f} | {low:.2f} to {high:.2f} |" in said
        assert f"| {done.hold_out.top.rms:.1%} |".replace("%", " %") in said


def test_envelope(said):
    table = load_table9().table
    curves = table[table["model"] == "mor"].assign(compute=lambda t: t["budget"])
    done = fit_envelope("mor", curves, resamples=0)
    assert f"(exponent {done.params_law.exponent:.3f}, no interval)" in said
