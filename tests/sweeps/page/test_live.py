"""The live page of a study: what it draws, that it needs nothing else, and in a real browser."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.curves import Curve
from ledger.errors import UserError
from ledger.folder import RunFolder
from ledger.metrics import VALIDATION
from ledger.result import Result
from sweeps.page import live
from sweeps.page.chart import LEFT, RIGHT, TOP, WIDTH, Series, panel
from sweeps.page.live import Page, watch_page
from sweeps.tasks import Kind
from tests.sweeps.store import Store

HOSTILE = "<script>throw 1</script>"


def log(folder: RunFolder, steps: range, validated: int = 10) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.metrics_file.open("a") as file:
        for step in steps:
            loss = 2 + 3 / math.sqrt(step)
            place = {"step": step, "tokens": 128 * step, "spent": 1e6 * step}
            file.write(json.dumps({**place, "loss": loss}) + "\n")
            if step % validated == 0:
                found = {VALIDATION: loss + 0.1, "val_nll_topk": loss, "val_bpb_causal": 4.0}
                file.write(json.dumps({**place, **found}) + "\n")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """One run done, one running, one failed; the trunk is in work."""
    monkeypatch.setenv("PATH", "/nowhere")  # no Slurm
    made = Store(tmp_path, [1e8, 2e8, 4e8])
    first, second, third = made.runs()
    trunk = made.segments()
    made.finish_segment(trunk[0])
    log(made.ledger.folder(trunk[0].split("@")[0]), range(1, 90))
    made.result(first)
    values = made.ledger.folder(first).result().to_dict()
    values["loss"] = {VALIDATION: 2.5, "val_bpb_causal": 2.5 / math.log(2)}
    made.ledger.folder(first).write_result(Result.from_dict(values))
    log(made.ledger.folder(second), range(90, 120))
    made.begin(
        second,
        claim=True,
        spent=1.2e8,
        target=2e8,
        loss=2.3,
        bits_per_byte=2.3 / math.log(2),
        step=120,
    )
    made.begin(third, state="failed", error=HOSTILE).end(1, "failed", HOSTILE)
    return made


def write(store: Store, file: Path) -> str:
    view = store.view()
    Page(view, file).write(view.look())
    return file.read_text()


def test_the_page_says_what_status_says_and_needs_nothing_else(store, tmp_path):
    html = write(store, tmp_path / "page.html")
    for run in store.runs():
        assert run in html
    assert re.findall(r"(?:src|href)=\"(?!data:)[^\"#]", html) == []
    assert "@import" not in html
    assert "<script" not in html  # what a run said stays text
    assert "&lt;script&gt;" in html
    assert re.search(r'http-equiv="refresh" content="60"', html)
    assert "3.318" in html  # bits per byte of the running one


def test_a_page_that_cannot_be_written_is_refused_by_name(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out .*file/page\.html"):
        write(store, tmp_path / "file" / "page.html")


def test_it_is_written_again_until_no_run_is_open(store, tmp_path, monkeypatch):
    """Each wait a run ends; what was logged meanwhile is on the next page."""
    file, texts = tmp_path / "watch.html", []
    view = store.view()
    _, second, third = store.runs()

    def wait(seconds: float) -> None:
        assert seconds == live.EVERY_S
        texts.append(file.read_text())
        log(store.ledger.folder(second), range(120 + 10 * len(texts), 130 + 10 * len(texts)))
        for run in (second, third, *store.segments()):
            if len(texts) > 1 and "@" not in run:
                store.result(run)

    monkeypatch.setattr(live.time, "sleep", wait)
    watch_page(view, file, lambda text: None)
    assert len(texts) == 2
    dots = [text.count('class="dot') for text in (*texts, file.read_text())]
    assert dots == sorted(set(dots))
    assert 'http-equiv="refresh"' not in file.read_text()


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(width, scheme, store, tmp_path, browser):
    file = tmp_path / "page.html"
    write(store, file)
    context = browser.new_context(viewport={"width": width, "height": 860}, color_scheme=scheme)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: said.append(request.url))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    assert said == [file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("svg polyline").count() >= 3
    box = page.locator("svg").first.bounding_box()
    assert box["width"] >= 320  # text of 11 px stays legible
    outside = page.evaluate(
        """() => [...document.querySelectorAll('svg text, circle, polyline')].filter((n) => {
          const own = n.getBoundingClientRect(), all = n.closest('svg').getBoundingClientRect();
          return own.left < all.left - 1 || own.right > all.right + 1 || own.top < all.top - 1;
        }).map((n) => n.outerHTML)"""
    )
    assert outside == []
    words = page.locator("circle.ring title").first.text_content()
    assert "2.5000 nats per token, 3.6067 bits per byte" in words
    context.close()


def test_first_steps_far_above_run_off_the_top():
    training = [(10.0**k, 2 + 100.0 * (k < 8)) for k in range(6, 26)]
    drawn = panel("m", [Series("run", 0, training, [])], None)
    [(_, _, line)] = drawn.lines
    heights = [float(pair.split(",")[1]) for pair in line.split()]
    assert len(heights) == 19  # of 20 points two are above: one stands for where the line comes in
    assert [height for height in heights if height <= TOP] == [TOP]


def test_a_run_that_is_evaluated_keeps_its_ring(tmp_path):
    store = Store(tmp_path, [1e8])
    [run] = store.runs()
    store.result(run)
    log(store.ledger.folder(run), range(1, 30))
    [task] = [task for task in store.view().tasks if task.is_run]
    scored = replace(task, task_id=f"{run}@corpus", kind=Kind.EVALUATION)
    view = store.view()
    view.tasks = [*view.tasks, scored]
    [shown] = Page(view, tmp_path / "page.html")._panels(view.look(), {"tiny": 0})
    assert [mark.ring for mark in shown.marks].count(True) == 1


FINITE = st.floats(1e-3, 50, allow_nan=False)
POINTS = st.lists(st.tuples(st.floats(1e3, 1e22), FINITE), max_size=12)


@settings(deadline=None, max_examples=60)
@given(training=POINTS, validation=POINTS, bits=st.none() | st.floats(0.05, 3))
def test_whatever_the_points_everything_is_inside_the_panel(training, validation, bits):
    drawn = panel("m", [Series("run", 0, training, validation)], bits)
    assert (drawn is None) == (not training and not validation)
    if drawn is None:
        return
    assert len(drawn.marks) == len(validation)
    numbers = [
        tuple(map(float, pair.split(","))) for _, _, line in drawn.lines for pair in line.split()
    ] + [(mark.x, mark.y) for mark in drawn.marks]
    for x, y in numbers:
        assert LEFT - 1 <= x <= WIDTH - RIGHT + 1
        assert TOP <= y <= drawn.bottom + 1
    for tick in drawn.x_ticks:
        assert LEFT <= tick.at <= WIDTH - RIGHT
    for tick in (*drawn.y_ticks, *drawn.bits):
        assert drawn.top - 1 <= tick.at <= drawn.bottom + 1


@settings(deadline=None, max_examples=60)
@given(cuts=st.lists(st.integers(0, 4000), max_size=6), junk=st.booleans())
def test_a_curve_read_in_pieces_is_the_curve_read_whole(cuts, junk, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    log(folder, range(1, 60))
    data = folder.metrics_file.read_bytes()
    if junk:
        data += b'{"step": 60, "loss": "x"}\n[1]\n{"loss": NaN, "spent": 1}\nhalf\n{"step": 61, "lo'
    whole = Curve()
    folder.metrics_file.write_bytes(data)
    whole.read_on(folder)
    pieces = Curve()
    for cut in sorted(min(cut, len(data)) for cut in cuts):
        folder.metrics_file.write_bytes(data[:cut])
        pieces.read_on(folder)
    folder.metrics_file.write_bytes(data)
    pieces.read_on(folder)
    assert pieces.training == whole.training
    assert pieces.validation() == whole.validation()
    assert len(whole.validation()) == 5
    assert sum(n for n, _, _ in whole.sums.values()) == 59
