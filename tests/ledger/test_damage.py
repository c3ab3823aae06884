"""Whatever a bit or a crash does to the ledger's files is found, or costs what it hit alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ledger.attempts import AttemptLog
from ledger.damage import (
    META,
    aside,
    checkpoint_damage,
    checkpoint_digests_differ,
    file_digest,
    name_before,
    sealed,
    set_aside,
)
from ledger.errors import DamagedFile
from ledger.folder import RunFolder
from ledger.metrics import CRC, MetricsWriter, read_line, read_metrics, sealed_line
from ledger.plan_file import PlanFile, RunEntry, read_plan, write_plan
from ledger.result import Result

anywhere = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
bits = st.integers(0, 10**9)


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    bit %= 8 * len(data)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))


def cut(path: Path, at: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: at % len(data)])


def checkpoint(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    (path / "weights").write_bytes(bytes(range(200)))
    meta = {
        "progress": {"step": 12, "spent": 1.5e9, "work": {"processed": 12}},
        "files": {"weights": file_digest(path / "weights")},
        "sizes": {"weights": 200},
    }
    (path / META).write_text(json.dumps(sealed(meta)))
    return path


@anywhere
@given(bit=bits, name=st.sampled_from([META, "weights"]), cuts=st.booleans())
def test_no_damage_to_a_checkpoint_passes(tmp_path, bit, name, cuts):
    path = checkpoint(tmp_path / "final")
    assert checkpoint_damage(path) is None
    assert not checkpoint_digests_differ(path)
    (cut if cuts else flip)(path / name, bit)
    if checkpoint_damage(path) is None:  # sizes and names say nothing: its digests do
        assert checkpoint_digests_differ(path)


def test_a_checkpoint_of_an_older_version_says_no_sizes_and_is_read(tmp_path):
    path = checkpoint(tmp_path / "final")
    meta = json.loads((path / META).read_text())
    (path / META).write_text(json.dumps({name: meta[name] for name in ("progress", "files")}))
    assert checkpoint_damage(path) is None
    (path / "weights").unlink()
    assert checkpoint_damage(path) == "weights is missing"


@anywhere
@given(bit=bits, cuts=st.booleans())
def test_no_damage_to_a_result_passes(tmp_path, bit, cuts):
    folder = RunFolder(tmp_path)
    folder.write_result(Result(run_id="a", status="diverged", budget=3e8, seed=1, tokens=12345))
    assert folder.damage() is None
    (cut if cuts else flip)(folder.result_file, bit)
    with pytest.raises(DamagedFile):
        folder.result()
    assert folder.damage() is not None
    assert folder.set_damaged_aside()
    assert folder.result() is None
    assert {name_before(path).name for path in aside(tmp_path)} == {"result.json", "result.digest"}


@anywhere
@given(bit=bits, cuts=st.booleans())
def test_no_damage_to_a_plan_passes(tmp_path, bit, cuts):
    file = tmp_path / "plan.json"
    write_plan(file, PlanFile(study="s", gpu="cpu", runs=(RunEntry(run_id="a-1"),)))
    assert read_plan(file).runs[0].run_id == "a-1"
    (cut if cuts else flip)(file, bit)
    with pytest.raises(DamagedFile):
        read_plan(file)


def test_files_of_an_older_version_have_no_digest_beside_them(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_result(Result(run_id="a", status="diverged"))
    folder.digest_file.unlink()
    assert folder.result().run_id == "a"


def steps_of(path: Path) -> list[int]:
    return [values["step"] for values in read_metrics(path)[0]]


@anywhere
@given(bit=bits, steps=st.integers(2, 12), cuts=st.booleans())
@example(bit=73, steps=3, cuts=False)  # the damaged step, 3, is that of a whole line
def test_damage_to_metrics_costs_the_lines_that_it_hit(tmp_path, bit, steps, cuts):
    path = tmp_path / "metrics.jsonl"
    path.unlink(missing_ok=True)
    writer = MetricsWriter(path)
    for step in range(1, steps + 1):
        writer.write(step, loss=1.0 / step)
    writer.close()
    before = path.read_bytes().splitlines()
    (cut if cuts else flip)(path, bit)
    again = MetricsWriter(path)
    again.write(10 * again.last + 1000, loss=0.0)
    again.close()
    after = path.read_bytes().splitlines()
    kept = steps_of(path)
    assert kept == sorted(set(kept))
    read, damaged = read_metrics(path)
    assert not damaged
    assert all(values["loss"] == 1.0 / values["step"] for values in read[:-1])  # no other digit
    if not cuts:  # a newline that is gone costs two lines
        assert len(set(before) - set(after)) <= 2


values = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name not in ("step", CRC)),
    st.floats(allow_nan=False) | st.integers() | st.none() | st.text(max_size=8),
    max_size=5,
)


@given(step=st.integers(0), others=values, bit=bits)
def test_a_line_is_read_as_written_or_not_at_all(step, others, bit):
    line = sealed_line({"step": step, **others}).encode()
    assert line.index(b"\n") == len(line) - 1
    line = line[:-1]
    assert read_line(line) == {"step": step, **others}
    assert json.loads(line).keys() == {"step", *others, CRC}  # pandas and jq read it, too
    flipped = bytearray(line)
    flipped[bit % (8 * len(line)) // 8] ^= 1 << bit % 8
    read = read_line(bytes(flipped))
    if read is not None:  # the name of the CRC was hit
        assert {name: read[name] for name in ("step", *others)} == {"step": step, **others}


def test_lines_of_an_older_version_are_read_and_gone_on_with(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "loss": 5.5}\n{"step": 20, "loss": 5.25}\n')
    writer = MetricsWriter(path)
    writer.write(20, loss=5.25)
    writer.write(30, loss=5.0)
    writer.close()
    assert read_metrics(path) == (
        [{"step": 10, "loss": 5.5}, {"step": 20, "loss": 5.25}, {"step": 30, "loss": 5.0}],
        0,
    )
    assert not aside(tmp_path)


def test_what_is_asked_of_a_step_passes_over_damaged_lines(tmp_path):
    folder = RunFolder(tmp_path)
    writer = MetricsWriter(folder.metrics_file)
    for step in (10, 20, 30):
        writer.write(step, loss=float(step))
    writer.close()
    text = folder.metrics_file.read_text()
    folder.metrics_file.write_text(text.replace("30.0", "31.0").replace("20.0", "2x.0"))
    assert [folder.metrics_at(step) for step in (10, 20, 30)] == [{"loss": 10.0}, {}, {}]


def test_steps_trained_twice_are_logged_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for last in (5, 8):
        writer = MetricsWriter(path)
        for step in range(1, last + 1):
            writer.write(step, loss=1.0)
        writer.close()
    assert steps_of(path) == list(range(1, 9))
    assert not aside(tmp_path)


@anywhere
@given(bit=bits, cuts=st.booleans())
def test_attempts_go_on_whatever_was_damaged(tmp_path, bit, cuts):
    (tmp_path / "attempts.jsonl").unlink(missing_ok=True)
    log = AttemptLog(tmp_path)
    for _ in range(3):
        log.end(log.begin("task", "launch", 1, False), "finished")
    (cut if cuts else flip)(log.path, bit)
    number = log.begin("task", "launch", 1, False)
    log.end(number, "finished")
    found = log.read()
    assert found[-1].attempt == number
    assert [a.attempt for a in found] == sorted({a.attempt for a in found})
    assert len(found) >= 3 or cuts


def test_what_is_set_aside_keeps_what_was_set_aside_before(tmp_path):
    for content in ("a", "b"):
        (tmp_path / "x.json").write_text(content)
        assert set_aside(tmp_path / "x.json") is not None
    assert [path.read_text() for path in aside(tmp_path)] == ["a", "b"]
    assert set_aside(tmp_path / "x.json") is None
