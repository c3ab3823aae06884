"""Results and plans survive reading and writing byte for byte, also those of other versions."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import LedgerVersionError, MalformedFile, UserError
from ledger.folder import RunFolder
from ledger.plan_file import PlanFile, StudyFolder, read_plan, study_of, together, write_plan
from ledger.result import Flops, Result, Throughput

WRITTEN = Result(
    run_id="mor-9k-3e8-12345678",
    status="done",
    budget=3e8,
    flops=Flops(planned=3e8, spent=3.01e8, extra={"paper": 3.01e8, "exact": 9e8, "6nd": 8e8}),
    loss={"train": 3.0, "val_nll_causal": 2.5, "val_nll_topk": 2.25},
    throughput=Throughput(device="cpu", tokens_per_s=10.0),
    extra={"git_commit": "abc", "versions": {"python": "3"}},
)


def test_a_result_is_read_as_it_was_written(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_result(WRITTEN)
    text = folder.result_file.read_text()
    found = folder.result()
    assert found == WRITTEN
    folder.write_result(found)
    assert folder.result_file.read_text() == text
    assert json.loads(text)["schema"] == 1
    assert (found.done, found.diverged) == (True, False)
    assert (found.validation_loss(), found.validation_loss("topk")) == (2.5, 2.25)
    assert (found.flops.under("exact"), found.flops.under("other")) == (9e8, None)


def test_keys_that_are_missing_or_unknown_stay_so():
    values = {"new": [1], "status": "diverged", "flops": {"exact": 1.0, "spent": 2.0}}
    result = Result.from_dict(values)
    assert result.diverged
    assert result.flops.spent == 2.0
    assert result.validation_loss() is None
    assert json.dumps(result.to_dict()) == json.dumps(values)


def test_another_schema_and_broken_files_are_refused(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.result() is None
    folder.result_file.write_text('{"schema": 2}')
    with pytest.raises(LedgerVersionError):
        folder.result()
    for text in ("{", "[1]"):
        folder.result_file.write_text(text)
        with pytest.raises(UserError):
            folder.result()


PLAN = {
    "schema": 1,
    "study": "s",
    "gpu": "cpu",
    "runs": [{"run_id": "a", "depends_on": ["t@1e8"], "status": "done", "unknown": 1}],
    "segments": [
        {
            **{"segment_id": "t@1e8", "trunk_id": "t", "target_flops": 1e8, "steps": 3},
            **{"exact_flops": 1e9, "gpu_hours": 0.1, "status": "planned", "depends_on": []},
        }
    ],
    "totals": {"runs": 1},
    "runs_dir": "runs",
}


def test_a_plan_is_written_as_it_was_read(tmp_path):
    launch = StudyFolder(tmp_path / "s").launch("1")
    launch.path.mkdir(parents=True)
    write_plan(launch.plan_file, PlanFile.from_dict(PLAN))
    assert json.loads(launch.plan_file.read_text()) == PLAN
    assert list(json.loads(launch.plan_file.read_text())) == list(PLAN)
    assert study_of(launch.plan_file) == launch.study == StudyFolder(tmp_path / "s")
    assert launch.study.launches() == [launch]
    with pytest.raises(UserError):
        read_plan(launch.study.plan_file)


def test_a_study_grows_by_what_a_launch_adds():
    plan = PlanFile.from_dict(PLAN)
    other = PlanFile.from_dict({**PLAN, "runs": [{"run_id": "b"}], "segments": []})
    both = other.with_earlier(plan)
    assert [run.run_id for run in both.runs] == ["a", "b"]
    assert [segment.segment_id for segment in both.segments] == ["t@1e8"]
    assert "totals" not in both.to_dict()


def cut(targets: list[float], price: float = 1.0, trunk: str = "t") -> PlanFile:
    """A launch's plan of one trunk: 10 FLOPs a step, cut at these FLOPs."""
    begins = [0.0, *targets]
    entries = [
        {
            **{"segment_id": f"{trunk}@{end:g}", "trunk_id": trunk, "target_flops": end},
            **{"steps": (end - start) / 10, "exact_flops": end - start, "status": "planned"},
            **{"gpu_hours": price * (end - start), "validation_flops": 0.1 * (end - start)},
            "depends_on": [f"{trunk}@{start:g}"] if start else [],
        }
        for start, end in pairwise(begins)
    ]
    entries = [{**one, "steps": int(one["steps"])} for one in entries]
    return PlanFile.from_dict({"schema": 1, "study": "s", "segments": entries})


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.lists(st.integers(1, 12), min_size=1, max_size=5, unique=True), min_size=1, max_size=4
    )
)
def test_launches_that_cut_a_trunk_differently_count_each_stretch_once(launches):
    plans = [cut([100.0 * t for t in sorted(one)]) for one in launches]
    plan = together(plans)
    ends = sorted({100.0 * target for one in launches for target in one})
    segments = sorted(plan.segments, key=lambda segment: segment.target_flops)
    whole = cut(ends).segments
    assert [one.segment_id for one in segments] == [one.segment_id for one in whole]
    for found, expected in zip(segments, whole, strict=True):
        assert found.depends_on == expected.depends_on
        assert found.steps == expected.steps
        for name in ("exact_flops", "gpu_hours", "validation_flops"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name))


def test_a_stretch_that_is_cut_off_keeps_the_newest_price():
    plan = together([cut([400.0], price=1.0), cut([100.0, 200.0], price=0.5)])
    hours = {one.segment_id: one.gpu_hours for one in plan.segments}
    assert hours == pytest.approx({"t@100": 50.0, "t@200": 50.0, "t@400": 200.0})
    other = together([plan, cut([50.0], trunk="u")])
    assert {one.trunk_id for one in other.segments} == {"t", "u"}


def test_a_cancelled_task_is_named_in_the_launch(tmp_path):
    launch = StudyFolder(tmp_path / "s").launch("1")
    launch.path.mkdir(parents=True)
    assert launch.cancelled() == frozenset()
    launch.cancel(["a"])
    launch.cancel(["b"])
    assert launch.cancelled() == {"a", "b"}


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"tokens": "many"}, "tokens"),
        ({"model": None}, "model"),
        ({"seed": True}, "seed"),
        ({"settings": []}, "settings"),
        ({"flops": {"planned": "1e18"}}, "planned"),
        ({"flops": 1e18}, "flops"),
        ({"loss": {"val_nll_causal": "3.1"}}, "loss.val_nll_causal"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_key(tmp_path, values, key):
    """Also in a result without a digest, which was not written here."""
    folder = RunFolder(tmp_path)
    folder.result_file.write_text(json.dumps({"schema": 1, "status": "done", **values}))
    with pytest.raises(MalformedFile, match=f"'{key}'"):
        folder.result()


@pytest.mark.parametrize(
    ("values", "key"), [({"runs": [{}]}, "run_id"), ({"runs": ["a"]}, "runs"), ({"gpu": 1}, "gpu")]
)
def test_a_plan_of_another_shape_is_refused_by_its_key(tmp_path, values, key):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"schema": 1, **values}))
    with pytest.raises(MalformedFile, match=f"'{key}'"):
        read_plan(file)
