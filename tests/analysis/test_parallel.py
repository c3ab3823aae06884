"""Work that is spread over processes gives what it gives here, in the same order."""

import os
from multiprocessing import parent_process

import pandas as pd
import pytest

from analysis import parallel
from analysis.errors import AnalysisError
from analysis.fits.isoflop import fit_isoflop
from analysis.parallel import spread
from analysis.report.fits import exponents

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="a system without fork works on one item after another"
)


@pytest.fixture(autouse=True)
def two_processors(monkeypatch):
    monkeypatch.setattr(parallel, "processors", lambda: 2)


def where(item):
    return item, parent_process() is not None


def test_results_keep_the_order_of_the_items():
    found = spread(where, range(9))
    assert [item for item, _ in found] == list(range(9))


@pytest.mark.parametrize(("items", "apart"), [(3, False), (4, True)])
def test_few_items_are_worked_on_here(items, apart):
    assert [away for _, away in spread(where, range(items))] == [apart] * items


def test_a_worker_spreads_nothing_further():
    inner = spread(lambda _: spread(lambda _: os.getpid(), range(4)), range(4))
    assert all(len(set(pids)) == 1 and os.getpid() not in pids for pids in inner)


def test_closures_and_unpicklable_items_reach_the_workers():
    factor, items = 3, [lambda: 1, lambda: 2, lambda: 3, lambda: 4]
    assert spread(lambda item: factor * item(), items) == [3, 6, 9, 12]


def test_an_error_of_an_item_is_raised_and_the_next_call_works():
    def refuse(item):
        if item == 2:
            raise AnalysisError("item=2 is refused: give 3.")
        return item

    with pytest.raises(AnalysisError, match="item=2"):
        spread(refuse, range(6))
    assert spread(lambda item: item + 1, range(4)) == [1, 2, 3, 4]


def test_a_killed_worker_costs_time_only():
    mother = os.getpid()

    def die_away_from_home(item):
        if os.getpid() != mother:
            os._exit(9)
        return item

    assert spread(die_away_from_home, range(5)) == list(range(5))


def test_fits_do_not_depend_on_how_many_processors_there_are(make_table, monkeypatch):
    table = make_table(noise=0.003, seeds=(0, 1))
    curves = ["mor", "mor_token", "recursive", "vanilla"]
    table = pd.concat([table[table["model"] == "mor"].assign(model=name) for name in curves])

    def found():
        result = fit_isoflop(table, resamples=200)
        laws = {name: (one.params_law, one.minima) for name, one in result.models.items()}
        return str(laws), exponents(table.assign(trunk=None), result)

    here, apart = [], []
    for processors, results in ((1, here), (2, apart)):
        monkeypatch.setattr(parallel, "processors", lambda many=processors: many)
        results.append(found())
    assert here == apart
