"""CSVs as people write them: read as written, said how they were read, or refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.cautions import Code
from analysis.commands.talk import parse_columns
from analysis.errors import AnalysisError
from analysis.fits.isoflop import fit_isoflop
from analysis.points.budgets import NEAR
from analysis.points.load import load_points
from analysis.points.numbers import number
from analysis.points.table import NUMBERS, PointSet, Wanted

CASES = Path(__file__).with_name("cases")
NAMED = "params=parameter_count,tokens=total_tokens,budget=achieved_flops,loss=val_loss"


def load(path: Path, columns: str = "") -> PointSet:
    return load_points(path, wanted=Wanted(columns=parse_columns(columns)))


READ = {
    "case": ("", []),
    "trail": ("", []),
    "shift": ("", []),
    "suffix": ("", []),
    "thousands": ("", []),
    "model_trailing_blank": ("", []),
    "achieved": ("", [Code.GROUPED_BUDGETS]),
    "achieved_flops_named": (NAMED, [Code.GROUPED_BUDGETS]),
    "billions": ("params=1e6*params,tokens=1e9*tokens", []),
    "log10": ("params=10^params,tokens=10^tokens,budget=10^budget", []),
}


@pytest.mark.parametrize("name", READ)
def test_one_law_whatever_it_is_written_like(name):
    columns, codes = READ[name]
    points = load(CASES / f"{name}.csv", columns)
    [frontier] = fit_isoflop(points.table, resamples=0).models.values()
    assert frontier.params_law.exponent == pytest.approx(0.4509, abs=1.5e-3)
    assert [warning.code for warning in points.warnings] == codes
    assert points.table["budget"].nunique() == 3


REFUSED = {
    "merged_model": "line 3",
    "dupcol": "column loss 2 times",
    "dup_trailing_space": "column loss 2 times",
    "index": "line 2 has 5 cells",
    "billions": "--columns params=1e6",
    "log10": "logarithms",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused(name):
    with pytest.raises(AnalysisError, match=REFUSED[name]) as refusal:
        load(CASES / f"{name}.csv")
    assert f"{name}.csv" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("columns", ["loss=a,loss=b", "params=N,tokens=N"])
def test_a_column_is_mapped_once(columns):
    with pytest.raises(AnalysisError, match="twice"):
        parse_columns(columns)
    assert parse_columns("model=name,curve=name") == {"model": "name", "curve": "name"}


# -- whatever a table looks like ---------------------------------------------------------------

ROWS = [
    (f"{2 * n * 10**6}", f"{d * 10**7}", f"3.{n}1", f"{12 * n * d * 10**13}")
    for n, d in ((1, 20), (2, 10), (4, 5), (1, 60), (3, 20), (6, 10))
]
QUIET = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
GROUPS = {"none": "", "comma": ",", "space": " ", "narrow": "\u202f", "swiss": "'"}


def numbers_of(points: PointSet) -> list[list[float]]:
    return points.table[list(NUMBERS)].to_numpy(float).tolist()


def grouped(text: str, mark: str) -> str:
    return f"{int(text):,}".replace(",", mark) if mark else text


def quoted(cell: str) -> str:
    return f'"{cell}"'


@QUIET
@given(
    order=st.permutations(range(4)),
    cases=st.lists(st.sampled_from([str.lower, str.upper, str.title]), min_size=4, max_size=4),
    blank=st.sampled_from(["", " ", "  ", "\t "]),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    ending=st.sampled_from(["\n", "\r\n"]),
    trailing=st.integers(0, 3),
    mark=st.sampled_from(sorted(GROUPS)),
    empty_lines=st.booleans(),
)
def test_form_changes_no_number(
    tmp_path, order, cases, blank, separator, encoding, ending, trailing, mark, empty_lines
):
    blank = blank.replace("\t", "") if separator == "\t" else blank
    header = [case(name) for case, name in zip(cases, NUMBERS, strict=True)]
    # params, tokens, loss, budget: all but the loss in groups of three digits
    body = [[c if i == 2 else grouped(c, GROUPS[mark]) for i, c in enumerate(r)] for r in ROWS]
    lines = []
    for row in (header, *body):
        cells = [quoted(f"{blank}{row[at]}{blank}") for at in order] + [""] * trailing
        lines.append(separator.join(cells))
        lines += [""] * empty_lines
    path = tmp_path / "points.csv"
    path.write_bytes(ending.join(lines).encode(encoding))
    points = load(path)
    assert numbers_of(points) == [[float(cell) for cell in row] for row in ROWS]
    assert points.warnings == ()
    step = 2 if empty_lines else 1
    last = 1 + step * len(ROWS)
    assert points.table["source"].iloc[-1] == f"{path}, line {last}"


@QUIET
@given(separator=st.sampled_from([";", "\t", "|"]), dots=st.booleans())
def test_decimal_commas_are_read_and_said(tmp_path, separator, dots):
    def continental(cell: str) -> str:
        return cell.replace(".", ",") if "." in cell else grouped(cell, "." if dots else "")

    lines = [NUMBERS, *([continental(cell) for cell in row] for row in ROWS)]
    path = tmp_path / "points.csv"
    path.write_text("\n".join(separator.join(line) for line in lines))
    points = load(path)
    assert numbers_of(points) == [[float(cell) for cell in row] for row in ROWS]
    assert [warning.code for warning in points.warnings] == [Code.DECIMAL_COMMAS]


@pytest.mark.parametrize(
    "text",
    [
        'params,tokens,loss,budget\n1e6,2e7,"3,623",1.2e14\n2e6,1e7,"3,523",1.2e14\n',
        'params,tokens,loss,budget\n1e6,2e7,"3,62",1.2e14\n2e6,1e7,3.52,1.2e14\n',
    ],
)
def test_a_comma_of_two_meanings_is_refused(tmp_path, text):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(AnalysisError, match="decimal"):
        load(path)


@QUIET
@given(
    which=st.sampled_from(("params", "tokens", "budget")),
    power=st.sampled_from([-12, -9, -6, -3, 3, 6, 9]),
    row=st.integers(0, len(ROWS) - 1) | st.none(),
)
def test_a_column_or_a_row_in_another_unit_is_refused(tmp_path, which, power, row):
    at = NUMBERS.index(which)
    rows = [list(line) for line in ROWS]
    for number_of, line in enumerate(rows):
        if row in (None, number_of):
            line[at] = repr(float(line[at]) * 10.0**power)
    path = tmp_path / "points.csv"
    path.write_text("\n".join(map(",".join, [list(NUMBERS), *rows])))
    with pytest.raises(AnalysisError, match="units"):
        load(path)


@pytest.mark.parametrize(("factor", "said"), [(1 / 3, 0), (1, 0), (20, 0), (1 / 20, 1), (90, 1)])
def test_compute_that_is_unusual_but_possible_is_said(tmp_path, factor, said):
    path = tmp_path / "points.csv"
    rows = [[n, d, loss, repr(float(c) * factor)] for n, d, loss, c in ROWS]
    path.write_text("\n".join(map(",".join, [list(NUMBERS), *rows])))
    assert [w.code for w in load(path).warnings] == [Code.UNUSUAL_COMPUTE] * said


@QUIET
@given(
    jitter=st.lists(
        st.floats(-NEAR / 3, NEAR / 3), min_size=len(ROWS), max_size=len(ROWS), unique=True
    )
)
def test_achieved_budgets_are_grouped_as_they_were_planned(tmp_path, jitter):
    path = tmp_path / "points.csv"
    rows = [
        [n, d, loss, repr(float(c) * (1 + by))]
        for (n, d, loss, c), by in zip(ROWS, jitter, strict=True)
    ]
    path.write_text("\n".join(map(",".join, [list(NUMBERS), *rows])))
    table = load(path).table
    planned = [float(c) for *_, c in ROWS]
    for wanted in set(planned):
        got = {b for b, c in zip(table["budget"], planned, strict=True) if c == wanted}
        assert len(got) == 1
        assert got.pop() == pytest.approx(wanted, rel=NEAR / 2)


def test_budgets_without_gaps_are_refused(tmp_path):
    path = tmp_path / "points.csv"
    rows = [
        ["1000000", str(20_000_000 + 200_000 * i), "3.5", repr(1.2e14 * 1.01**i)] for i in range(9)
    ]
    path.write_text("\n".join(map(",".join, [list(NUMBERS), *rows])))
    with pytest.raises(AnalysisError, match="--columns budget="):
        load(path)


def test_names_that_differ_in_case_alone_are_said(tmp_path):
    path = tmp_path / "points.csv"
    named = [["MoR" if i % 2 else "mor", *row] for i, row in enumerate(ROWS)]
    path.write_text("\n".join(map(",".join, [["model", *NUMBERS], *named])))
    points = load(path)
    assert set(points.table["model"]) == {"mor", "MoR"}
    assert [warning.code for warning in points.warnings] == [Code.NAMES_ALIKE]


def test_another_encoding_is_refused_with_its_line(tmp_path):
    path = tmp_path / "points.csv"
    path.write_bytes("model,params,tokens,loss,budget\né,1e6,2e7,3,1e14\n".encode("cp1252"))
    with pytest.raises(AnalysisError, match="line 2 is not UTF-8"):
        load(path)


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_a_number_is_the_nearest_double(value):
    assert number(repr(value)) == value


@given(st.decimals("0.001", "999.999", places=3), st.sampled_from("kKmMbBgGtT"))
def test_a_suffix_is_exact(value, suffix):
    power = {"k": 3, "m": 6, "b": 9, "g": 9, "t": 12}[suffix.lower()]
    assert number(f"{value}{suffix}", suffixes=True) == float(value.scaleb(power))


# -- losses ------------------------------------------------------------------------------------


def with_losses(path: Path, column: str, losses: list[float]) -> Path:
    header = [column if name == "loss" else name for name in NUMBERS]
    rows = [[n, d, repr(loss), c] for (n, d, _, c), loss in zip(ROWS, losses, strict=True)]
    path.write_text("\n".join(map(",".join, [header, *rows])))
    return path


@QUIET
@given(losses=st.lists(st.floats(1.0, 12.0), min_size=len(ROWS), max_size=len(ROWS)))
def test_perplexities_give_the_loss_that_they_are_the_exponential_of(tmp_path, losses):
    path = with_losses(tmp_path / "points.csv", "val_ppl", [math.exp(x) for x in losses])
    found = load(path, "loss=ln(val_ppl)").table["loss"].tolist()
    assert found == pytest.approx(losses, rel=1e-12)
    with pytest.raises(AnalysisError, match=r"loss=ln\(val_ppl\)"):
        load(path, "loss=val_ppl")


@QUIET
@given(row=st.integers(0, len(ROWS) - 1), loss=st.floats(13.1, 1e6))
def test_a_loss_that_no_vocabulary_reaches_is_refused_by_its_line(tmp_path, row, loss):
    losses = [3.1] * len(ROWS)
    losses[row] = loss
    path = with_losses(tmp_path / "points.csv", "loss", losses)
    with pytest.raises(AnalysisError, match=f"line {row + 2} "):
        load(path)


@pytest.mark.parametrize("column", ["bpb", "val_bits_per_byte", "Bits/token"])
def test_bits_are_said(tmp_path, column):
    path = with_losses(tmp_path / "points.csv", column, [1.1 + 0.01 * i for i in range(len(ROWS))])
    points = load(path, f"loss={column}")
    assert [warning.code for warning in points.warnings] == [Code.LOSS_IN_BITS]


def test_a_column_that_is_named_like_a_function_is_taken_by_its_name(tmp_path):
    path = with_losses(tmp_path / "points.csv", "ln(loss)", [3.1] * len(ROWS))
    assert load(path, "loss=ln(loss)").table["loss"].tolist() == [3.1] * len(ROWS)


def test_the_logarithm_of_nothing_is_left_out(tmp_path):
    losses = [0.0, *[20.0] * (len(ROWS) - 1)]
    points = load(with_losses(tmp_path / "points.csv", "ppl", losses), "loss=ln(ppl)")
    assert len(points.table) == len(ROWS) - 1
    assert [warning.code for warning in points.warnings] == [Code.UNUSABLE_ROWS]
