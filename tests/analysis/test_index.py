from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from analysis import index
from analysis.isoflop import fit_isoflop
from analysis.points import PointSet, load_points


class Page(HTMLParser):
    """Links, images and visible text of a page; fails on tags that do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text())
        assert self._open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "img", "br"}:
            self._open.append(tag)
        found = dict(attrs)
        if tag == "a":
            self.links.append(found["href"])
        if tag == "img":
            self.images.append(found)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data


def write(points: PointSet, folder: Path, **options) -> Page:
    result = fit_isoflop(points.table, resamples=50)
    return Page(index.write_index(folder, result, points, **options))


@pytest.fixture(scope="module")
def page(written_study: Path) -> Page:
    points = load_points(written_study)
    return write(points, written_study / "analysis", command="python -m analysis isoflop x")


def test_every_link_and_image_exists_and_is_relative(page, written_study):
    runs = [link for link in page.links if "runs" in link]
    assert len(runs) == 21
    assert len(page.images) == 4
    for target in [*page.links, *(image["src"] for image in page.images)]:
        assert not target.startswith(("/", "http"))
        assert (written_study / "analysis" / unquote(target)).exists(), target
    assert all(len(image["alt"]) > 40 for image in page.images)


def test_the_page_traces_its_numbers(page):
    for said in (
        "paper convention",
        "f00d",
        "c0ffee",
        "python -m analysis isoflop x",
        "N_opt ~ C^0.500 (95 % interval",
        "No result yet for 1 of 22 runs",
        "vanilla-3k-1e+10-0",
        "50 resamples",
    ):
        assert said in page.text, said


def test_the_paper_stands_beside_with_an_honest_reading(page):
    assert "arXiv 2507.10524v3, Table 9" in page.text
    assert "an edge, not a minimum" in page.text


def test_points_without_sizes_have_one_figure_and_a_note(tmp_path):
    path = tmp_path / "points.csv"
    rows = "".join(f"<b>x</b>,{size},9,{loss},4\n" for size, loss in ((1, 3), (2, 2), (3, 3)))
    path.write_text("model,params,tokens,loss,budget\n" + rows)
    page = write(load_points(path), tmp_path / "page", with_reference=False)
    assert len(page.images) == 1
    assert "Loss against budget is not drawn" in page.text
    assert "points.csv, line 2" in page.text
    assert "2507.10524" not in page.text
    assert not list((tmp_path / "page").glob("reference_*"))
    # A name is the user's text, not markup.
    assert "&lt;b&gt;x&lt;/b&gt;" in (tmp_path / "page" / "index.html").read_text()
    assert "<b>x</b>" in page.text


def test_a_failure_half_way_leaves_the_old_page(study, monkeypatch):
    folder = study / "analysis"
    folder.mkdir()
    (folder / "index.html").write_text("the old page")
    monkeypatch.setattr(index.loss_vs_budget, "draw", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(load_points(study), folder)
    assert (folder / "index.html").read_text() == "the old page"
    assert not list(folder.glob(".*"))
