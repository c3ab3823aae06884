"""`python -m analysis figures`: what feeds what, and what is said of the rest."""

import json
import re

import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.commands.cli import app
from analysis.paper.catalogue import ENTRIES
from tests.analysis.paper.conftest import routing_of
from tests.analysis.paper.test_tables import MOR, RECURSIVE, TOKEN

SHARINGS = ("cycle", "sequence", "middle_cycle", "middle_sequence")
SHARING = [{"nll": 2.2}] + [
    {"nll": 2.3 + 0.1 * i, **RECURSIVE, "model.sharing": s} for i, s in enumerate(SHARINGS)
]


def figures(*arguments):
    return CliRunner().invoke(app, ["figures", *map(str, arguments)])


def told(result, word):
    lines = [line.split() for line in result.stdout.splitlines() if line.startswith(word)]
    return {line[1]: " ".join(line[2:]) for line in lines}


def test_from_the_paper_alone_all_that_it_publishes_is_drawn(tmp_path):
    result = figures("--source", "paper", "--out", tmp_path)
    assert result.exit_code == 0
    names = {entry.name for entry in ENTRIES}
    drawn, missing = set(told(result, "drawn")), set(told(result, "missing"))
    assert drawn | missing == names
    assert missing == {"figure_1", "figure_4a", "figure_5b", "figure_5c", "appendix_kv"}
    for stem in ("figure_3_paper", "figure_4b", "figure_4c", "figure_5a_paper"):
        assert all((tmp_path / f"{stem}.{s}").is_file() for s in ("png", "svg", "pdf", "csv"))
    page = (tmp_path / "index.html").read_text()
    linked = re.findall(r'(?:href|src)="([^"#]+)"', page)
    assert linked
    assert all((tmp_path / name).is_file() for name in linked)


def test_a_study_feeds_what_its_runs_are_about_whatever_its_name(write_study):
    study = write_study("mine", SHARING)
    result = figures(study, "--source", "runs")
    assert set(told(result, "drawn")) == {"figure_4b", "table_sharing"}
    assert told(result, "missing")["figure_4c"].endswith("python sweep.py -m study=kv_sharing")
    data = pd.read_csv(study / "figures" / "figure_4b.csv")
    assert data.set_index("sharing")["val_nll"].to_dict() == pytest.approx(
        {"-": 2.2, **{s: 2.3 + 0.1 * i for i, s in enumerate(SHARINGS)}}
    )


def test_a_store_is_read_with_its_studies_and_names_go_first(write_study, tmp_path):
    write_study("sharing_toy", SHARING, unfinished=2)
    write_study("other", [{**run, "nll": run["nll"] + 1} for run in SHARING])
    result = figures(tmp_path / "runs", "--source", "both", "--out", tmp_path / "out")
    assert told(result, "drawn")["figure_4b"] == "study sharing_toy; arXiv 2507.10524v3"
    assert "2 of 7 runs have no result yet" in told(result, "missing")["figure_4b"]
    # Without --all, what no run feeds is not drawn from the paper alone.
    assert "table_main" not in told(result, "drawn")
    both = pd.read_csv(tmp_path / "out" / "figure_4b.csv")
    assert set(both["source"]) == {"study sharing_toy", "paper"}
    every = figures(tmp_path / "runs", "--all", "--out", tmp_path / "out")
    assert "table_main" in told(every, "drawn")


def test_figures_of_a_routed_run_hold_its_measurements(write_study):
    routing = routing_of()
    runs = [
        {"nll": 2.5, **MOR, "routing": routing},
        {"nll": 2.4, **MOR, "routing": routing_of(seed=1), "budget": 1e10},
        {"nll": 2.6, **TOKEN, "model": "mor_token", "routing": routing_of(seed=2)},
    ]
    study = write_study("quick", runs)
    result = figures(study, "--source", "runs")
    drawn = told(result, "drawn")
    assert drawn["figure_5b"] == drawn["figure_1"] == "quick-0"  # the largest budget
    assert drawn["figure_5c"] == "quick-0; quick-2"
    folder = study / "figures"
    scores = pd.read_csv(folder / "figure_5b.csv")
    for recursion in (2, 3):
        here = scores[scores["recursion"] == recursion]
        for kind in ("selected", "unselected"):
            assert here[kind].tolist() == routing["score_histogram"][kind][recursion - 1]
    assert set(scores["recursion"]) == {2, 3}  # recursion 1 takes every token
    depths = pd.read_csv(folder / "figure_5c.csv")
    assert depths[depths["model"] == "mor"]["nll"].tolist() == routing["nll_by_depth"]
    for stem in ("figure_1", "figure_5b"):
        assert ">quick-0<" in (folder / f"{stem}.svg").read_text()
    text = pd.read_csv(folder / "figure_1.csv", keep_default_na=False)
    assert text["token"].tolist() == routing["sample"]["text"]
    assert text["depth"].tolist() == routing["sample"]["depth"]


def test_keys_and_values_across_depths_are_drawn_where_a_run_has_them(write_study):
    cosine = [[1.0, 0.5], [0.5, 1.0]]
    found = {"key_norm": [3, 4], "value_norm": [1, 2], "key_cosine": cosine, "value_cosine": cosine}
    study = write_study("quick", [{"nll": 2.5, **MOR, "more": {"kv_statistics": found}}])
    result = figures(study, "--source", "runs", "--only", "appendix_kv")
    assert told(result, "drawn") == {"appendix_kv": "quick-0"}
    data = pd.read_csv(study / "figures" / "appendix_kv.csv")
    assert data[(data["kind"] == "key") & (data["measure"] == "norm")]["value"].tolist() == [3, 4]


def test_throughput_is_drawn_from_a_file_only(tmp_path):
    file = tmp_path / "speed.csv"
    file.write_text("model,tokens_per_s,nll,batch\nvanilla,1000,2.78,32\nmor,1600,2.79,max\n")
    only = ("--only", "figure_4a", "--out", tmp_path / "out")
    assert told(figures(*only, "--throughput", file), "drawn") == {"figure_4a": str(file)}
    assert len(pd.read_csv(tmp_path / "out" / "figure_4a.csv")) == 2
    assert "no measured throughput" in told(figures(*only), "missing")["figure_4a"]
    file.write_text("model,tokens_per_s\nvanilla,1000\n")
    refused = figures(*only, "--throughput", file)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "nll" in refused.stderr


def test_throughput_is_drawn_from_what_the_benchmark_prints(tmp_path):
    points = [
        {"model": model, "batch": batch, "tokens_per_s": speed, "nll": 2.5}
        for model, speed in (("vanilla", 100.0), ("mor2", 130.0))
        for batch in ("32", "what fits 100 MiB")
    ]
    file = tmp_path / "speed.json"
    only = ("--only", "figure_4a", "--out", tmp_path / "out", "--throughput", file)
    file.write_text(json.dumps({"mor2": {"speedup": 1.3}, "points": points}))
    assert told(figures(*only), "drawn") == {"figure_4a": str(file)}
    assert len(pd.read_csv(tmp_path / "out" / "figure_4a.csv")) == 4
    for wrong in ('{"mor2": {}}', "{", "[]", '{"points": [{"model": "x", "nll": 1}]}'):
        file.write_text(wrong)
        refused = figures(*only)
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)


def test_the_published_runs_lie_under_runs_of_the_same_sizes(write_study):
    # At the paper's sizes, in the case that conf/ writes them in.
    runs = [
        {"nll": 3 + 0.1 * i - 0.01 * j, "size": size, "budget": budget, "params": params}
        for i, (size, params) in enumerate({"135m": 1e8, "360m": 3e8, "730m": 7e8}.items())
        for j, budget in enumerate((2e18, 5e18))
    ]
    study = write_study("paper", runs)
    result = figures(study, "--only", "figure_3")
    assert result.exit_code == 0
    data = pd.read_csv(study / "figures" / "figure_3.csv")
    assert sorted(data.groupby("source").size()) == [6, 36]
    assert not (study / "figures" / "figure_3_paper.svg").exists()
    own = figures(study, "--only", "figure_3", "--source", "runs")
    assert set(told(own, "drawn")) == {"figure_3"}


def test_a_wrong_name_is_answered_with_the_right_ones(tmp_path):
    result = figures("--only", "figure_9", "--out", tmp_path)
    assert result.exit_code == 2
    assert "figure_5a" in result.stderr
    assert result.stderr.count("\n") == 1
    gone = figures(tmp_path / "nowhere")
    assert (gone.exit_code, gone.stderr.count("\n")) == (2, 1)


def test_an_unreadable_result_is_one_sentence(write_study):
    study = write_study("sharing", SHARING)
    file = study.parents[1] / "runs" / "sharing-0" / "result.json"
    file.write_text(json.dumps([1]))
    result = figures(study)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
