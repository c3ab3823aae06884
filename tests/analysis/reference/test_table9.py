from analysis.points.table import COLUMNS
from analysis.reference import load_table9


def test_the_shipped_table_is_complete_and_tidy():
    table = load_table9().table
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 36
    assert set(table.groupby(["model", "size", "budget"]).size()) == {1}
    assert set(table["model"]) == {"vanilla", "recursive", "mor"}
    assert set(table["budget"]) == {2e18, 5e18, 16.5e18}
    assert set(table["convention"]) == {"paper"}


def test_a_few_cells_stand_as_printed():
    table = load_table9().table.set_index(["model", "size", "budget"])
    row = table.loc[("mor", "1.7B", 16.5e18)]
    assert (row["loss"], row["params"], row["tokens"]) == (2.8316, 0.67e9, 6.5e9)


def test_vanilla_leads_at_the_largest_budget_except_at_the_largest_size():
    table = load_table9().table
    last = table[table["budget"] == 16.5e18]
    best = last.loc[last.groupby("size")["loss"].idxmin()].set_index("size")["model"]
    assert best.to_dict() == {
        "135M": "vanilla",
        "360M": "vanilla",
        "730M": "vanilla",
        "1.7B": "mor",
    }
