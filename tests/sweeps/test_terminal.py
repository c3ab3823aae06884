"""Brackets and colons of paths, settings and errors stay where they are printed."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.table import Table

from sweeps.ending import summary
from sweeps.terminal import plain_console
from tests.sweeps.store import Store

ROOT = Path(__file__).parents[2]
ERROR = "data.paths=[corpus/d0001.txt]: cannot be split [/red] :warning: [bold]"


def test_the_error_of_a_run_keeps_its_brackets(tmp_path: Path) -> None:
    store, out = Store(tmp_path, [1e9]), io.StringIO()
    [run] = store.runs()
    store.begin(run, state="failed", error=ERROR).end(1, "failed", ERROR)
    console = plain_console(file=out, width=300)
    outcome = summary(store.plan, store.ledger, console)
    assert outcome.failed == 1
    assert ERROR in out.getvalue()


def test_tables_and_their_titles_keep_them() -> None:
    out = io.StringIO()
    table = Table(title=ERROR)
    table.add_column(ERROR)
    table.add_row(ERROR)
    plain_console(file=out, width=300).print(table)
    assert out.getvalue().count(ERROR) == 3


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").rglob("*.py")), ids=lambda p: p.name)
def test_sweeps_prints_by_its_own_console(path: Path) -> None:
    if path.name != "terminal.py":
        assert not re.search(r"(?<!plain_)\bConsole\(", path.read_text())
