import csv
import io

import pandas as pd
import pytest

from analysis.paper.render import save_table
from analysis.paper.runs import find_studies
from analysis.paper.tables import TABLES, TASKS
from analysis.reference import FOLDER, load_published
from ledger.evaluation import Evaluation
from ledger.folder import RunFolder

BY_NAME = {table.name: table for table in TABLES}
MOR = {"model.architecture": "mor", "model.n_recursions": 3, "model.router.type": "expert"}
TOKEN = {
    **MOR,
    "model.router.type": "token",
    "model.router.activation": "softmax",
    "model.router.alpha": 1,
}
RECURSIVE = {"model.architecture": "recursive", "model.n_recursions": 3}


def rows_of(name, study):
    (found,) = find_studies(study, "causal")
    return BY_NAME[name].rows(found.runs)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_published_tables_hold_what_is_printed(table, paper_table, tmp_path):
    saved = save_table(table, None, True, tmp_path, "paper")
    given = paper_table(table.published)
    written = list(csv.DictReader((tmp_path / f"{table.name}.csv").open()))
    assert len(written) == len(given) == len(saved.cells)
    for ours, theirs in zip(written, given, strict=True):
        assert ours == {key: theirs[key] for key in ours}
    # Every loss stands in all three files as it was printed.
    text = [(tmp_path / f"{table.name}.{suffix}").read_text() for suffix in ("md", "tex")]
    for row in given:
        assert all(row.get("val_nll", row.get("train_nll")) in t for t in text)


def test_every_published_file_is_named_with_its_source():
    readme = (FOLDER / "README.md").read_text()
    assert all(f"`{file.name}`" in readme for file in FOLDER.glob("*.csv"))


# A run with the settings of a published row is that row: whatever the table calls its variants.
VARIANTS = [
    ("table_main", {}, ("vanilla", "-", "-", "1")),
    ("table_main", {**MOR, "model.kv": "shared"}, ("mor", "expert", "share", "3")),
    ("table_main", TOKEN, ("mor", "token", "cache", "3")),
    ("table_sharing", {**RECURSIVE, "model.sharing": "sequence"}, ("sequence", "3")),
    (
        "table_kv_sharing",
        {**RECURSIVE, "model.kv": "shared"},
        ("recursive", "-", "middle_cycle", "3", "middle_cycle-3"),
    ),
    ("table_kv_sharing", {"model.kv": "cycle"}, ("vanilla", "-", "-", "1", "cycle-2")),
    (
        "table_kv_sharing",
        {**MOR, "model.kv": "hybrid"},
        ("mor", "expert", "middle_cycle", "3", "hybrid-3"),
    ),
    (
        "table_router_expert",
        MOR,
        ("aux_loss", "0.001", "sigmoid", "0.1", "linear", "no", "no"),
    ),
    (
        "table_router_expert",
        {
            **MOR,
            "model.router.sampling": "aux_router",
            "model.router.activation": "tanh",
            "model.router.alpha": 1,
            "model.router.network": "mlp",
        },
        ("aux_router", "-", "tanh", "1.0", "mlp", "no", "no"),
    ),
    (
        "table_router_expert",
        {**MOR, "model.router.network": "random"},
        ("-", "-", "random", "-", "-", "no", "no"),
    ),
    (
        "table_router_expert",
        {**MOR, "model.router.capacity_warmup_steps": 50},
        ("aux_loss", "0.001", "sigmoid", "0.1", "linear", "yes", "no"),
    ),
    ("table_router_token", TOKEN, ("loss", "0.1", "softmax", "1.0", "linear", "no")),
    (
        "table_router_token",
        {
            **TOKEN,
            "model.router.balancing": "loss_free",
            "model.router.bias_update_rate": "0.01",
            "model.router.network": "mlp",
            "model.router.z_coeff": "1e-05",
        },
        ("loss_free", "0.01", "softmax", "1.0", "mlp", "yes"),
    ),
]


@pytest.mark.parametrize(("name", "settings", "key"), VARIANTS)
def test_a_run_with_the_settings_of_a_published_row_is_that_row(name, settings, key, write_study):
    study = write_study("any", [{"nll": 2.5, **settings}])
    table = BY_NAME[name]
    (row,) = rows_of(name, study)[table.keys].to_numpy()
    assert tuple(row) == key
    assert key in set(map(tuple, load_published(table.published)[table.keys].to_numpy()))


def test_seeds_are_averaged_and_variants_kept_apart(write_study):
    runs = [{"nll": nll, "seed": s, **RECURSIVE} for s, nll in enumerate((2.4, 2.6))]
    runs.append({"nll": 3.0, **RECURSIVE, "model.sharing": "cycle"})
    rows = rows_of("table_sharing", write_study("sharing", runs)).set_index("sharing")
    assert rows.loc["middle_cycle", "val_nll"] == pytest.approx(2.5)
    assert rows.loc["cycle", "val_nll"] == pytest.approx(3.0)
    assert list(rows.index) == ["cycle", "middle_cycle"]  # as the paper orders them


def test_router_metrics_reach_their_columns(write_study):
    from tests.analysis.paper.conftest import routing_of

    study = write_study("router_expert", [{"nll": 2.5, **MOR, "routing": routing_of()}])
    (row,) = rows_of("table_router_expert", study).to_dict("records")
    assert row["dead_token_pct"] == pytest.approx(12.5)
    assert row["sampling_acc_pct"] == pytest.approx(94)  # the mean where something is selected
    study = write_study("router_token", [{"nll": 2.5, **TOKEN, "routing": routing_of()}])
    (row,) = rows_of("table_router_token", study).to_dict("records")
    assert (row["maxvio"], row["entropy"]) == (0.25, 1.05)


def test_runs_and_paper_stand_on_one_line_where_they_are_the_same_variant(write_study, tmp_path):
    runs = [
        {"nll": 2.5, "layers": 32, "params": 1e5},
        {"nll": 2.7, **MOR, "model.kv": "shared"},
        {"nll": 2.6, **MOR, "model.n_recursions": 6},
    ]
    table = BY_NAME["table_main"]
    rows = rows_of("table_main", write_study("main_results", runs))
    saved = save_table(table, rows, True, tmp_path, "both")
    # Nr 6 is not in the paper: no number there, which is not a run that diverged.
    printed = saved.header.index("Val. NLL (paper)")
    assert [cells[printed] for cells in saved.cells if cells[3] == "6"] == ["-"]
    text = (tmp_path / "table_main.csv").read_text()
    both = pd.read_csv(io.StringIO(text)).set_index(["model", "router", "kv", "recursions"])
    assert both.loc[("vanilla", "-", "-", 1), ["val_nll", "val_nll (paper)"]].tolist() == [
        2.5,
        2.7824,
    ]
    shared = both.loc[("mor", "expert", "share", 3)]
    assert (shared["val_nll"], shared["val_nll (paper)"]) == (2.7, 2.7983)
    # A variant that one side lacks keeps its line, and no line is doubled.
    assert len(both) == 12 + 1
    assert both["val_nll"].notna().sum() == 3
    assert "avg" not in both  # runs have no few-shot accuracy: no empty column


def test_a_diverged_run_is_told_from_a_variant_that_was_not_run(write_study, tmp_path):
    study = write_study("router_expert", [{"nll": 2.5, **MOR, "more": {"loss": {}}}])
    table = BY_NAME["table_router_expert"]
    saved = save_table(table, rows_of("table_router_expert", study), True, tmp_path, "both")
    own, printed = saved.header.index("Val. NLL"), saved.header.index("Val. NLL (paper)")
    losses = {row[printed]: row[own] for row in saved.cells}
    assert losses.pop("2.8667") == "nan"
    assert set(losses.values()) == {"-"}


def test_scores_on_the_paper_s_tasks_fill_the_few_shot_columns(write_study, tmp_path):
    study = write_study("main_results", [{"nll": 2.5, "layers": 32, "params": 1e5}])
    (result,) = study.parents[1].glob("runs/*/result.json")
    scores = {**{task: 30.0 + i for i, task in enumerate(TASKS)}, "avg": 32.5}
    folder = RunFolder(result.parent)
    folder.write_evaluation("paper-limit8", Evaluation(task_set="paper", scores={"avg": 99.0}))
    assert pd.isna(rows_of("table_main", study)["avg"]).all()
    folder.write_evaluation("paper", Evaluation(task_set="paper", scores=scores))
    (row,) = rows_of("table_main", study).to_dict("records")
    assert {key: row[key] for key in scores} == scores
    saved = save_table(BY_NAME["table_main"], rows_of("table_main", study), False, tmp_path, "x")
    assert saved.cells[0][saved.header.index("LAMBADA")] == "30.0"
    assert saved.cells[0][saved.header.index("Average (%)")] == "32.5"
