"""Ids say what they are of."""

from ledger.ids import budget_name, folder_of, is_trunk, run_name, segment_name, trunk_name


def test_budgets_are_named_as_people_write_them():
    assert [budget_name(b) for b in (5e18, 1.65e19, 2.5e11)] == ["5e18", "1.65e19", "2.5e11"]


def test_ids_are_composed_and_read():
    run, trunk = run_name("mor", "9k", 3e8, {"a": 1}), trunk_name("mor", "9k", {"a": 1})
    assert run.startswith("mor-9k-3e8-")
    assert trunk.startswith("mor-9k-trunk-")
    assert (is_trunk(run), is_trunk(trunk)) == (False, True)
    segment = segment_name(trunk, 2.4e8)
    assert segment == f"{trunk}@2.4e8"
    assert (folder_of(segment), folder_of(run)) == (trunk, run)
