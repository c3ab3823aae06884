"""What a plan says of its corpora: what is there, what is missing, what is read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.store import Ledger
from mor.config import Config, DataConfig, ModelConfig, RuntimeConfig, SizeConfig, TrainConfig
from mor.data.known import known
from mor.data.look import with_fingerprint
from mor.data.prepare import prepare
from sweeps.config import ClusterConfig
from sweeps.corpora import corpus_lines
from sweeps.plan import Plan, build_plan

ROWS, FILES = 200, 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """JSON lines of some 20 KB, with a null and a line that is cut in each file."""
    made = tmp_path / "corpus"
    made.mkdir()
    for i in range(FILES):
        texts = [f"file {i} row {j} " + "some words " * 9 for j in range(ROWS // FILES)]
        lines = [json.dumps({"text": text}) for text in (*texts, None)]
        (made / f"{i}.jsonl").write_text("\n".join([*lines, '{"text": "cu']) + "\n")
    return made


@pytest.fixture
def planned(folder: Path, tmp_path: Path) -> Callable[..., Plan]:
    """A plan of two runs on that corpus."""

    def make(train: TrainConfig | None = None, **settings: object) -> Plan:
        data = DataConfig("mine", "files", paths=(f"{folder}/*.jsonl",), val_fraction=0.2)
        data = replace(data, cache_dir=str(tmp_path / "cache"), **settings)  # type: ignore[arg-type]
        size = SizeConfig("tiny", 2, d_model=16, n_heads=2, n_kv_heads=1, d_head=8, d_ff=32)
        base = Config(ModelConfig("vanilla"), size, runtime=RuntimeConfig(device="cpu"))
        train = train or TrainConfig(batch_size=4, seq_len=32, warmup_steps=3, val_tokens=64)
        base = replace(base, train=train, data=with_fingerprint(data))
        configs = [replace(base, budget=budget) for budget in (2e8, 2e9)]
        return build_plan("s", configs, Ledger(tmp_path / "runs"), ClusterConfig("cpu", 0.3))

    return make


@pytest.mark.parametrize("sharded", [False, True])
def test_repeats_and_left_out_rows_are_said(planned, sharded: bool) -> None:
    plan = planned(sharded=sharded)
    data = plan.runs[0].config.data
    prepare(data, progress=False)
    there = known(data)
    assert there.exact
    assert dict(there.tally.skipped) == {"null": FILES, "not JSON": FILES}
    *_, repeats, left_out = corpus_lines(plan)
    assert f"{max(run.tokens for run in plan.runs) / there.train:.1f} times" in repeats
    assert f"{2 * FILES:,} of {ROWS + 2 * FILES:,} rows" in left_out
    assert ", line " in left_out


def test_the_same_is_known_before_preparing(planned) -> None:
    plan = planned()
    data = plan.runs[0].config.data
    before, said = known(data), corpus_lines(plan)
    prepare(data, progress=False)
    assert known(data) == before
    assert corpus_lines(plan) == said


def test_no_more_is_to_be_prepared_than_the_files_hold(planned, folder: Path) -> None:
    plan = planned(sharded=True)
    size = sum(path.stat().st_size for path in folder.iterdir())
    there = known(plan.runs[0].config.data)
    assert not there.exact
    for one in plan.data:
        assert 0 < one.missing <= there.train <= size + FILES
    prepare(plan.runs[0].config.data, progress=False)
    after = known(plan.runs[0].config.data)
    assert after.train + after.val <= there.train


@pytest.mark.parametrize("settings", [{"tokenizer": "x/y"}, {"encoding": "cp1251"}])
def test_nothing_is_said_of_sizes_that_files_do_not_tell(planned, settings: dict) -> None:
    assert known(planned(sharded=True, **settings).runs[0].config.data).train is None


@pytest.mark.parametrize("sharded", [False, True])
def test_validation_is_priced_by_what_is_held_out(planned, sharded: bool) -> None:
    train = TrainConfig(batch_size=4, seq_len=32, warmup_steps=3, val_tokens=64)
    prepare(planned(sharded=sharded).runs[0].config.data, progress=False)
    held_out = known(planned(sharded=sharded).runs[0].config.data).val
    prices = {
        tokens: planned(replace(train, val_tokens=tokens), sharded=sharded).runs[0].validation_flops
        for tokens in (64, held_out, 100 * held_out)
    }
    assert prices[64] < prices[held_out] == prices[100 * held_out]


def test_more_tokens_than_there_are_are_refused_until_all_is_prepared(
    refused, sweep, folder: Path, tmp_path: Path
) -> None:
    """The command that has prepared a corpus to its end goes on when it is typed again."""
    cache = tmp_path / "cache"
    command = [
        *("-m", "study=quick", "size=9k", "budget=3e9", "data=files", "data.sharded=true"),
        *(f"data.paths=[{folder}/*.jsonl]", "data.tokens=1e12", f"data.cache_dir={cache}"),
    ]
    assert refused(*command).startswith("data.tokens=1e12: ")
    assert not (tmp_path / "studies").exists()
    paths = (f"{folder}/*.jsonl",)
    data = DataConfig("files", "files", paths=paths, sharded=True, cache_dir=str(cache))
    prepare(data, progress=False)
    ended = sweep(*command, "launch=plan")
    assert ended.returncode == 0, ended.stderr
    assert "data.tokens=1e+12 asks for more" in ended.stdout


def test_bad_files_are_refused_before_anything_is_launched(
    refused, folder: Path, tmp_path: Path
) -> None:
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF")
    (folder / "odd.txt").write_bytes(b"a\0b")
    message = refused(
        *("-m", "study=quick", "size=9k", "budget=3e9", "model=vanilla,mor", "data=files"),
        *(f"data.paths=[{folder}/*]", f"data.cache_dir={tmp_path / 'cache'}"),
    )
    assert "odd.txt (" in message
    assert "photo.jpg (" in message
    assert not [name for name in ("runs", "studies") if (tmp_path / name).exists()]
