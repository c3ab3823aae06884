"""The page in a real browser: quiet, offline, and usable by pointer, finger and keyboard."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import Browser, Page

from analysis.fits.isoflop import fit_isoflop
from analysis.points.load import load_points
from analysis.report.page import write_report
from tests.analysis.conftest import study_table
from tests.analysis.report.conftest import WANTED, build, write

# Every visible text and mark with its contrast against what lies behind it (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const parse = (c) => {
    const n = c.match(/[\\d.]+/g).map(Number);
    return n.length === 3 ? [...n, 1] : n;
  };
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let n = node; n; n = n.parentElement) {
      const colour = parse(getComputedStyle(n).backgroundColor);
      if (colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const style = getComputedStyle(node);
    const mark = node.matches(".mark, .line, .span, .bar, .star");
    const words = [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const shown = node.getClientRects().length && !node.matches("script, style, option");
    if (!shown || (!words && !mark)) continue;
    const outlined = mark && (style.fill === "none" || node.matches(".hollow, .span"));
    const svg = node.namespaceURI.endsWith("svg");
    const colour = svg ? (outlined ? style.stroke : style.fill) : style.color;
    const what = `${node.tagName} ${node.getAttribute("class")} ${node.textContent.slice(0, 30)}`;
    found.push({ what, mark, ratio: ratio(parse(colour), behind(node)) });
  }
  return found;
}"""
WIDER = """() => [...document.querySelectorAll('body *')]
  .filter((n) => !n.closest('.wide, .skip, .tip') && n.getBoundingClientRect().right > 361)
  .map((n) => n.outerHTML.slice(0, 80))"""


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


def open_page(browser: Browser, file: Path, **options) -> Page:
    context = browser.new_context(**options)
    page = context.new_page()
    page.said = []  # type: ignore[attr-defined]
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.said.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("[data-chart=isoflop] .item")
    return page


@pytest.fixture
def desktop(browser: Browser, report: Path) -> Iterator[Page]:
    page = open_page(browser, report, viewport={"width": 1100, "height": 800})
    yield page
    page.context.close()


@pytest.fixture
def phone(browser: Browser, report: Path) -> Iterator[Page]:
    page = open_page(
        browser, report, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True
    )
    yield page
    page.context.close()


def chart(page: Page, name: str = "isoflop"):
    return page.locator(f"[data-chart={name}]")


def test_it_draws_every_chart_and_asks_for_nothing_but_itself(desktop, report):
    charts = desktop.locator("[data-chart]")
    for number in range(charts.count()):
        if charts.nth(number).is_visible():
            assert charts.nth(number).locator("svg .item").count() > 0
    # A name that ends a script must stay text: it would have thrown.
    assert desktop.said == [report.as_uri()]


def run_mark(page: Page):
    return chart(page).locator(".item[aria-label*='mor-30k-1e+10-0']").first


def assert_tells_the_run(page: Page) -> None:
    tip = chart(page).locator(".tip")
    assert tip.is_visible()
    told = tip.inner_text()
    for fact in (
        "mor-30k-1e+10-0",
        "loss ",
        "30K parameters",
        "tokens",
        "1e10 paper",
        "3.3e10 exact",
    ):
        assert fact in told, (fact, told)


def centre(page: Page):
    box = run_mark(page).locator("path").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_pointer_shows_the_run(desktop):
    run_mark(desktop).scroll_into_view_if_needed()
    desktop.mouse.move(*centre(desktop))
    assert_tells_the_run(desktop)
    desktop.mouse.move(2, 2)
    assert chart(desktop).locator(".tip").is_hidden()


def test_a_tap_beside_a_run_on_a_phone_shows_it(phone):
    run_mark(phone).scroll_into_view_if_needed()
    x, y = centre(phone)
    phone.touchscreen.tap(x + 3, y + 3)
    assert_tells_the_run(phone)
    tip = chart(phone).locator(".tip").bounding_box()
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= 360


def test_the_keyboard_reaches_every_run_from_one_stop_a_chart(desktop):
    stops = chart(desktop).locator(".item[tabindex='0']")
    assert stops.count() == 1
    stops.focus()
    seen = set()
    items = chart(desktop).locator(".item").count()
    for _ in range(items):
        seen.add(chart(desktop).locator(".tip").inner_text())
        desktop.keyboard.press("ArrowRight")
    assert len([told for told in seen if told.startswith(("mor-", "vanilla-"))]) == 42
    desktop.keyboard.press("Escape")
    assert chart(desktop).locator(".tip").is_hidden()


def test_enter_opens_the_runs_folder(desktop):
    run_mark(desktop).focus()
    desktop.keyboard.press("Enter")
    desktop.wait_for_url("**/runs/mor-30k-1e*10-0/")


def test_the_legend_switches_series_on_and_off(desktop):
    items = chart(desktop).locator("g.item[aria-label^='mor-']")
    before = items.count()
    toggle = chart(desktop).locator("[data-toggle='model mor']")
    toggle.click()
    assert toggle.get_attribute("aria-pressed") == "false"
    assert items.count() == 0
    assert chart(desktop).locator("g.item[aria-label^='vanilla-']").count() == before
    toggle.press("Enter")
    assert items.count() == before == 21


def test_the_other_arrangement_shows_the_same_runs(desktop):
    titles = chart(desktop).locator("svg .title")
    assert titles.all_text_contents() == ["1e10 FLOPs", "1e11 FLOPs", "1e12 FLOPs"]
    chart(desktop).get_by_text("a panel for each model").click()
    assert titles.all_text_contents() == ["vanilla", "mor"]
    assert chart(desktop).locator("g.item[aria-label^='mor-']").count() == 21


def test_a_heading_sorts_by_number_both_ways(desktop):
    losses = desktop.locator("table.sortable tbody tr td:nth-child(2)")
    budgets = desktop.locator("table.sortable tbody tr td:nth-child(3)")
    head = desktop.locator("table.sortable").get_by_role("button", name="Loss")
    head.click()
    up = [float(text) for text in losses.all_inner_texts()]
    assert up == sorted(up)
    head.click()
    down = [float(text) for text in losses.all_inner_texts()]
    assert down == up[::-1]
    desktop.locator("table.sortable").get_by_role("button", name="Budget").click()
    # As text, 1e12 would still stand last, but not if a budget of 9e9 were there; numbers sort.
    assert [float(text) for text in budgets.all_inner_texts()] == sorted(
        float(text) for text in budgets.all_inner_texts()
    )


@pytest.fixture
def paged(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """42 runs where a page of the table holds 10 and a chart 20 marks."""
    monkeypatch.setattr("analysis.report.page.ROWS", 10)
    monkeypatch.setattr("analysis.report.charts.MARKS", 20)
    page = open_page(browser, write(build(tmp_path)), viewport={"width": 360, "height": 740})
    yield page
    page.context.close()


def test_a_long_table_has_pages_a_filter_and_sorts_as_a_whole(paged, tmp_path):
    results = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/result.json")]
    losses = sorted(r["loss"]["val_nll_causal"] for r in results)
    rows = paged.locator("#table-of-runs tbody tr")
    shown = paged.locator("#table-of-runs tbody tr td:nth-child(2)")
    where = paged.locator(".pages [role=status]")
    assert rows.count() == 10
    assert "1 to 10 of 42" in where.inner_text()
    paged.locator("#table-of-runs").get_by_role("button", name="Loss").click()
    found = [float(text) for text in shown.all_inner_texts()]
    for _ in range(4):
        paged.get_by_role("button", name="Next").click()
        found += [float(text) for text in shown.all_inner_texts()]
    assert found == pytest.approx(losses, abs=1e-4)
    assert rows.count() == 2
    assert paged.get_by_role("button", name="Next").is_disabled()
    paged.get_by_label("Filter").fill("mor 1e12")
    assert "1 to 7 of 7" in where.inner_text()
    links = paged.locator("#table-of-runs tbody a")
    names = links.all_inner_texts()
    assert all("mor" in name for name in names)
    hrefs = [unquote(links.nth(i).get_attribute("href")) for i in range(links.count())]
    assert all((tmp_path / "studies" / "first" / href).is_dir() for href in hrefs)
    assert paged.evaluate("document.documentElement.scrollWidth") == 360
    assert all(said.startswith("file:") for said in paged.said)


def test_nothing_is_wider_than_a_phone(phone):
    assert phone.evaluate("document.documentElement.scrollWidth") == 360
    wide = phone.evaluate(WIDER)
    assert wide == []
    # What may be wider scrolls in its own box, which the keyboard can reach.
    boxes = phone.locator(".wide")
    assert all(boxes.nth(i).get_attribute("tabindex") == "0" for i in range(boxes.count()))
    small = phone.evaluate(
        "() => [...document.querySelectorAll('svg text')].filter((n) => n.getBoundingClientRect()"
        ".height < 9 && getComputedStyle(n).fontSize.replace('px', '') < 11).length"
    )
    assert small == 0


HIDING = """() => [...document.querySelectorAll('.wide')].filter((n) => n.clientWidth).map((n) => ({
  name: n.getAttribute('aria-label'), beyond: n.scrollWidth - n.clientWidth > 1,
  shaded: getComputedStyle(n).boxShadow !== 'none', said: !n.previousElementSibling.hidden }))"""


@pytest.mark.parametrize("width", [360, 390])
def test_a_table_that_hides_columns_says_and_shows_so(browser, report, width):
    page = open_page(browser, report, viewport={"width": width, "height": 844}, is_mobile=True)
    agree = "every((n) => n.shaded === n.beyond && n.said === n.beyond)"
    page.wait_for_function(f"() => ({HIDING})().{agree}")  # observers answer after the layout
    found = {one["name"]: one for one in page.evaluate(HIDING)}
    assert found["Planned and spent"]["beyond"]
    box = page.locator(".wide[aria-label='Planned and spent']")
    box.evaluate("(n) => { n.scrollLeft = n.scrollWidth; }")
    page.wait_for_function("() => !document.querySelector('.wide').classList.contains('more')")
    assert page.locator(".beyond").first.is_visible()
    page.context.close()


def test_a_table_that_fits_says_nothing(desktop):
    assert not any(one["shaded"] or one["said"] for one in desktop.evaluate(HIDING))


def test_a_chart_without_exponents_says_why(browser, tmp_path):
    table = study_table(sizes={"3k": 3e3})
    file = tmp_path / "points.csv"
    table[["model", "size", "params", "tokens", "loss", "budget"]].to_csv(file, index=False)
    points = load_points(file, wanted=WANTED)
    result = fit_isoflop(points.table, resamples=0)
    page = open_page(browser, write_report(tmp_path / "page.html", result, points))
    said = chart(page, "exponents").inner_text()
    page.context.close()
    assert "switched off" not in said
    assert "0 of 3 budgets with an interior minimum" in said


def test_text_and_marks_have_contrast(browser, report, scheme):
    page = open_page(browser, report, color_scheme=scheme, viewport={"width": 1100, "height": 800})
    run_mark(page).focus()
    chart(page, "exponents").locator("[data-toggle='model mor']").click()
    found = page.evaluate(CONTRAST)
    page.context.close()
    assert len(found) > 300
    assert sum(one["mark"] for one in found) > 100
    bad = [one for one in found if one["ratio"] < (3 if one["mark"] else 4.5)]
    assert bad == []


OVERLAPS = """() => [...document.querySelectorAll('svg')].flatMap((svg) => {
  const turned = [...svg.querySelectorAll('text[transform]')].map((n) => n.getBoundingClientRect());
  const others = [...svg.querySelectorAll('text[text-anchor=end]')];
  return others.filter((n) => turned.some((t) => n.getBoundingClientRect().left < t.right - 1))
    .map((n) => n.textContent);
})"""


def test_no_tick_lies_over_the_name_of_its_axis(desktop, phone):
    for page in (desktop, phone):
        assert page.locator("svg text[transform]").count() > 5
        assert page.evaluate(OVERLAPS) == []


def test_ticks_are_round_numbers(desktop):
    texts = desktop.locator("svg text[text-anchor]:not([transform])").all_text_contents()
    assert len(texts) > 50
    assert not [text for text in texts if "e-" in text or len(text) > 40]
    ticks = desktop.evaluate("[linearTicks(-0.3, 0.3, 6), linearTicks(1.9, 2.05, 5)]")
    assert ticks[0] == [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3]
    assert ticks[1] == [1.9, 1.95, 2, 2.05]


def test_dark_and_light_differ(browser, report):
    backgrounds = set()
    for scheme in ("light", "dark"):
        page = open_page(browser, report, color_scheme=scheme)
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.context.close()
    assert len(backgrounds) == 2


def test_it_prints(desktop, tmp_path):
    pdf = desktop.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") >= 2 or len(pdf) > 30_000


def test_routing_of_a_run_is_chosen_from_a_list(desktop):
    shown = desktop.locator("[data-routed]:visible")
    assert shown.count() == 1
    assert "at 1e12 FLOPs" in shown.locator("h3").inner_text()
    assert "recursion 1: selects every token" in shown.inner_text()
    assert shown.locator("svg .title").all_text_contents()[-3:] == [
        "Recursion 1",
        "Recursion 2",
        "Recursion 3",
    ]
    desktop.locator("#routing-run").select_option(index=2)
    assert "at 1e10 FLOPs" in desktop.locator("[data-routed]:visible h3").inner_text()
    assert desktop.locator("[data-routed]:visible .item").count() > 10


def test_pictures_have_names_for_those_who_do_not_see_them(desktop):
    unnamed = desktop.evaluate(
        "() => [...document.querySelectorAll('svg[role], [role=img], [role=region], [role=group],"
        " button, select')].filter((n) => !(n.getAttribute('aria-label') || n.textContent.trim()"
        " || n.labels?.length)).length"
    )
    assert unnamed == 0
    assert desktop.evaluate("document.documentElement.lang") == "en"
