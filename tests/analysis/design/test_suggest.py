"""A suggested run is worth its price: checked against refits, not against the formula itself."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.commands.suggest import overrides
from analysis.design.law import TrueLaw, law_of
from analysis.design.suggest import repeats, suggest
from analysis.errors import AnalysisError
from analysis.points.load import load_points
from analysis.points.table import Wanted
from tests.analysis.conftest import result_of
from tests.analysis.laws import TRUTH, law_table, refit

NOISE = 0.0008


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    table = law_table(noise=NOISE / 2.6, sizes=5, budgets=3)
    return table.assign(size=[f"s{n % 5}" for n in range(len(table))], seed=0.0)


@pytest.fixture(scope="module")
def law() -> TrueLaw:
    return TrueLaw(**TRUTH, source="truth", sizes=(1, 1e12), noise=NOISE)


def spread(base: pd.DataFrame, more: pd.DataFrame | None, studies: int = 2000) -> float:
    """Half of the 95 % spread of a over studies on these points, drawn and refitted."""
    rng = np.random.default_rng(11)
    table = base if more is None else pd.concat([base, more])
    params, tokens = table["params"].to_numpy(float), table["tokens"].to_numpy(float)
    clean = TRUTH["E"] + TRUTH["A"] * params ** -TRUTH["alpha"]
    clean = clean + TRUTH["B"] * tokens ** -TRUTH["beta"]
    # Drawn in this order, designs share the noise of the runs that they share.
    noise = [rng.standard_normal((studies, len(base))), rng.standard_normal((studies, 1))]
    losses = clean + NOISE * np.column_stack(noise)[:, : len(table)]
    return float(1.96 * np.std(refit(params, tokens, losses, TRUTH)))


def test_a_suggested_run_shrinks_the_spread_more_per_cost_than_a_random_one(points, law):
    candidates = repeats(points, {}, "")
    best = suggest(law, points, candidates, 1).runs[0]
    before = spread(points, None)
    worth = []
    for _, row in candidates.iterrows():
        worth.append((before - spread(points, row.to_frame().T)) / row["cost"])
    at = np.flatnonzero(
        (candidates["params"] == best.params) & (candidates["budget"] == best.budget)
    )[0]
    assert worth[at] > 2 * np.mean(worth)
    assert worth[at] > np.percentile(worth, 80)
    # What it promised is what happened.
    assert best.before == pytest.approx(before, rel=0.15)
    assert best.after == pytest.approx(spread(points, candidates.iloc[[at]]), rel=0.15)


def test_runs_follow_each_other_and_never_widen(points, law):
    done = suggest(law, points, repeats(points, {}, ""), 6)
    for first, second in zip(done.runs, done.runs[1:], strict=False):
        assert second.before == first.after
    assert all(run.after < run.before for run in done.runs)
    names = [(run.size, run.budget, run.seed) for run in done.runs]
    assert len(set(names)) == 6
    assert all(seed >= 1 for _, _, seed in names)
    assert done.cost == pytest.approx(sum(run.cost for run in done.runs))


def test_dear_runs_wait(points, law):
    candidates = repeats(points, {}, "")
    first = suggest(law, points, candidates, 1).runs[0]
    at = (candidates["params"] == first.params) & (candidates["budget"] == first.budget)
    dear = candidates.assign(cost=candidates["cost"] * np.where(at, 1e6, 1))
    assert suggest(law, points, dear, 1).runs[0].params != first.params


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["suggest", *map(str, arguments)])


def test_the_command_prints_what_the_sweep_takes(tmp_path, points):
    file = tmp_path / "points.csv"
    points.assign(model="mor").to_csv(file, index=False)
    told = json.loads(invoke(file, "--runs", 2, "--json").stdout)
    runs = told["models"][0]["runs"]
    assert len(runs) == 2
    for run in runs:
        assert run["overrides"].startswith("model=mor size=s")
        assert f"seed={run['seed']}" in run["overrides"]
    shown = invoke(file, "--runs", 2).stdout
    assert f"python sweep.py -m ... {runs[0]['overrides']}" in shown
    assert "->" in shown


def test_a_repeat_names_its_budget_to_the_last_digit(tmp_path, points):
    file = tmp_path / "points.csv"
    points.assign(budget=points["budget"] * 1.0123456789).to_csv(file, index=False)
    for run in json.loads(invoke(file, "--json").stdout)["models"][0]["runs"]:
        settings = dict(pair.split("=") for pair in run["overrides"].split())
        assert float(settings["budget"]) == run["budget"]


def test_points_without_sizes_have_no_command_to_paste(tmp_path, points):
    file = tmp_path / "points.csv"
    points.drop(columns="size").to_csv(file, index=False)
    runs = json.loads(invoke(file, "--json").stdout)["models"][0]["runs"]
    assert [run["overrides"] for run in runs] == [None] * 3
    shown = invoke(file)
    assert shown.exit_code == 0
    assert "sweep.py" not in shown.stdout
    assert "params=" not in shown.stdout


def test_a_curve_is_typed_with_the_settings_it_differs_in(tmp_path, points):
    file = tmp_path / "points.csv"
    told = {"curve": "mor (alpha=0.2)", "overrides": "model.router.alpha=0.2"}
    points.assign(model="mor", **told).to_csv(file, index=False)
    [run] = json.loads(invoke(file, "--runs", 1, "--json").stdout)["models"][0]["runs"]
    assert run["overrides"].startswith("model=mor size=s")
    assert run["overrides"].endswith(" model.router.alpha=0.2")


def test_a_label_is_never_typed_as_a_model(tmp_path, points):
    settings = [{"model": {"kv": kv}, "seed": 0} for kv in ("recursion", "shared")]
    runs = []
    for kind, (label, given) in enumerate(zip(("own keys", "given keys"), settings, strict=True)):
        for n, row in enumerate(points.to_dict("records")):
            run_id = f"mor-{kind}-{n}"
            known = {
                "convention": "paper",
                "data_fingerprint": "d",
                "git_commit": None,
                "code": None,
            }
            result = result_of({**row, **known, "model": "mor", "run_id": run_id, "seed": 0})
            file = tmp_path / "runs" / run_id / "result.json"
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps({**result, "settings": given}))
            runs.append({"run_id": run_id, "label": label})
    study = tmp_path / "studies" / "kv"
    study.mkdir(parents=True)
    (study / "plan.json").write_text(json.dumps({"schema": 1, "runs": runs, "runs_dir": "runs"}))
    table = load_points(study, wanted=Wanted(names=("overrides",))).table
    assert set(table["model"]) == {"mor"}
    for label, given in (("own keys", "recursion"), ("given keys", "shared")):
        rows = table[table["label"] == label]
        assert set(rows["curve"]) == {label}
        done = suggest(law_of(rows, label), rows, repeats(rows, {}, ""), 1)
        assert done.model == label
        typed = overrides(done.runs[0])
        assert typed.startswith("model=mor size=s")
        assert typed.endswith(f" model.kv={given}")
        assert label not in typed


def test_candidates_come_from_a_plan_at_its_price(tmp_path, points):
    file = tmp_path / "points.csv"
    points.assign(model="mor", run_id=[f"r{i}" for i in points.index]).to_csv(file, index=False)
    one = {"size": "new", "budget": 1e19, "seed": 0, "tokens": 1e10, "gpu_hours": 2.0}
    runs = [
        {**one, "model": "mor", "run_id": "n1", "n_params_nonembedding": 1e8},
        {**one, "model": "mor", "run_id": "r3", "n_params_nonembedding": 2e8},
        {**one, "model": "vanilla", "run_id": "n2", "n_params_nonembedding": 3e8},
    ]
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"schema": 1, "gpu": "cpu", "runs": runs}))
    told = json.loads(invoke(file, "--candidates", plan, "--json").stdout)["models"][0]
    assert {(run["size"], run["params"]) for run in told["runs"]} == {("new", 1e8)}
    assert (told["cost"], told["unit"]) == (6.0, "core-hours")
    plan.write_text(json.dumps({"schema": 1, "gpu": "cpu", "runs": runs[2:]}))
    assert "no run to suggest" in invoke(file, "--candidates", plan).stderr


def test_a_model_of_one_loss_leaves_the_others_their_runs(tmp_path, points):
    flat = points.assign(model="flat", loss=3.0)
    both, alone = tmp_path / "both.csv", tmp_path / "alone.csv"
    pd.concat([points.assign(model="mor"), flat]).to_csv(both, index=False)
    flat.to_csv(alone, index=False)
    told = json.loads(invoke(both, "--json").stdout)
    assert [one["model"] for one in told["models"]] == ["mor"]
    assert ["flat of" in warning for warning in told["warnings"]] == [True]
    refused = invoke(alone)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "flat of" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.filterwarnings("error")
def test_a_law_without_a_floor_is_one_of_numbers(points):
    law = TrueLaw(**{**TRUTH, "E": 0.0}, source="no floor", sizes=(1, 1e12), noise=NOISE)
    params, tokens = points["params"].to_numpy(float), points["tokens"].to_numpy(float)
    terms = TRUTH["A"] * params ** -TRUTH["alpha"] + TRUTH["B"] * tokens ** -TRUTH["beta"]
    assert law.loss(params, tokens) == pytest.approx(terms)
    with pytest.raises(AnalysisError, match="do not identify"):
        suggest(law, points, repeats(points, {}, ""), 1)


def test_points_that_tell_nothing_are_refused(points, law):
    one_budget = points[points["budget"] == points["budget"].min()]
    with pytest.raises(AnalysisError, match=r"only 5 points|no more points"):
        law_of(one_budget, "mor")
    narrow = points[points["params"] == points["params"].iloc[0]]
    with pytest.raises(AnalysisError, match="do not identify the law's five parameters"):
        suggest(law, pd.concat([narrow] * 8), repeats(points, {}, ""), 1)
