"""Curves are told apart by every swept setting."""

from analysis.points.series import name_series


def run(name: str, model: str = "mor", **settings):
    row = {"run_id": name, "model": model}
    return row, {"budget": 1, "seed": 0, "size": {"d_model": 8}, **settings}


def label(*runs):
    rows = [row for row, _ in runs]
    notes = name_series(rows, {row["run_id"]: settings for row, settings in runs})
    return [row.get("curve") or row["model"] for row in rows], notes


def test_budget_size_and_seed_are_one_curve():
    a = run("a", model_={"n": 1})
    b = run("b", model_={"n": 1})
    b[1].update(budget=2, seed=1, size={"d_model": 16})
    assert label(a, b) == (["mor", "mor"], [])


def test_a_swept_setting_makes_a_curve_each_and_is_said():
    names, notes = label(
        run("a", train={"lr": 1}, m={"n_recursions": 2}),
        run("b", train={"lr": 1}, m={"n_recursions": 3}),
        run("c", "vanilla", train={"lr": 1}, m={"n_recursions": 1}),
    )
    assert names == ["mor (n_recursions=2)", "mor (n_recursions=3)", "vanilla"]
    assert len(notes) == 1
    assert "m.n_recursions" in notes[0].text


def test_a_curve_says_what_to_type():
    rows = [row for row, _ in (run("a"), run("b"))]
    settings = [{"model": {"router": {"alpha": alpha}, "kv": "recursion"}} for alpha in (0.1, 0.2)]
    name_series(rows, dict(zip("ab", settings, strict=True)))
    assert [row["overrides"] for row in rows] == [
        "model.router.alpha=0.1",
        "model.router.alpha=0.2",
    ]


def test_results_without_settings_keep_their_name():
    rows = [{"run_id": "a", "model": "mor"}]
    assert name_series(rows, {"a": {}}) == []
    assert rows[0]["model"] == "mor"
