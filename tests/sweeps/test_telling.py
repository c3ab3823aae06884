"""Settings that differ between runs of one model, size and budget are columns of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ledger.store import Ledger
from mor.config import Config, ModelConfig, SizeConfig, TrainConfig, replace_at
from sweeps.config import ClusterConfig
from sweeps.plan import build_plan
from sweeps.tables import plan_table
from sweeps.telling import MOST, telling_settings

SIZE = SizeConfig("tiny", 8, d_model=16, n_heads=2, n_kv_heads=1, d_head=8, d_ff=32)
TRAIN = TrainConfig(batch_size=4, seq_len=32, warmup_steps=3, precision="fp32")
BASE = Config(ModelConfig("vanilla"), SIZE, train=TRAIN, budget=1e9)


def swept(axes: dict[str, Sequence[Any]], base: Config = BASE) -> list[Config]:
    """Every combination of some settings."""
    configs = []
    for values in product(*axes.values()):
        config = base
        for name, value in zip(axes, values, strict=True):
            config = replace_at(config, name, value)
        configs.append(config)
    return configs


def told(configs: Sequence[Config]) -> dict[str, list[str]]:
    return telling_settings(configs, [(c.label, c.budget) for c in configs])


@pytest.mark.parametrize(
    ("setting", "values", "name", "shown"),
    [
        ("seed", [0, 1], "seed", ["0", "1"]),
        ("train.beta2", [0.9, 0.95], "beta2", ["0.9", "0.95"]),
        ("train.optimizer", ["adamw", "muon"], "optimizer", ["adamw", "muon"]),
        ("data.fingerprint", ["aa", "bb"], "fingerprint", ["aa", "bb"]),
    ],
)
def test_a_swept_setting_is_named_by_its_last_part(setting, values, name, shown):
    assert told(swept({setting: values})) == {name: shown}


def test_a_last_part_that_is_another_setting_s_too_gets_the_one_before_it():
    configs = [replace(BASE, data=replace(BASE.data, name=n, fingerprint=n)) for n in ("a", "b")]
    assert told(configs) == {"data.name": ["a", "b"]}
    named = telling_settings(swept({"train.seq_len": [32, 64]}), [0, 0], taken=["seq_len"])
    assert list(named) == ["train.seq_len"]


def test_what_is_shown_already_or_does_nothing_is_no_column():
    assert told(swept({"budget": [1e9, 2e9]})) == {}
    assert told(swept({"label": ["a", "b"]})) == {}
    assert told(swept({"budget": [1e9, 2e9], "seed": [0, 1]})) == {"seed": ["0", "1"] * 2}
    # one that differs between labels only tells nothing more
    pair = [replace(replace_at(BASE, "train.clip", clip), label=str(clip)) for clip in (1.0, 2.0)]
    assert told(pair) == {}


def test_of_many_settings_those_that_tell_most_apart_are_shown():
    axes = {f"train.{name}": [0.5, 0.9] for name in ("beta1", "beta2", "clip", "weight_decay")}
    found = told(swept({**axes, "seed": [0, 1, 2]}))
    assert len(found) == MOST
    assert "seed" in found
    assert len(set(zip(*found.values(), strict=True))) == 3 * 2 ** (MOST - 1)


@pytest.mark.parametrize("width", [40, 200])
def test_a_plan_keeps_them_in_any_window(tmp_path: Path, width: int):
    configs = swept({"seed": [0, 1], "train.lr": [0.001, 0.003], "train.clip": [1.0, 2.0]})
    plan = build_plan("s", configs, Ledger(tmp_path), ClusterConfig("cpu", 0.3))
    table = plan_table(plan, width)
    cells = {str(column.header): list(column.cells) for column in table.columns}
    assert list(cells)[:4] == ["run", "clip", "seed", "lr"]
    rows = zip(cells["seed"], cells["lr"], cells["clip"], strict=True)
    wanted = product(("0", "1"), ("0.001", "0.003"), ("1", "2"))
    assert list(rows) == list(wanted)
    assert ("steps\n(warm-up)" in cells) == (width == 200)
