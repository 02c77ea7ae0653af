"""The page in a real browser: what a reader can do with it, by keyboard, on a phone, in the dark, on paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.report.page.folder import write
from harness.report.page.page import Page, page_of
from harness.report.page.scales import scales
from harness.store.records import Store
from tests.harness.report.page.browser import Browser, Tab
from tests.harness.report.page.hostile import hostile_project
from tests.programs import BROWSER

pytestmark = [pytest.mark.browser, pytest.mark.slow]
TABLE = "document.querySelector('#tables table.sortable')"
FIRST_CELLS = f"Array.from({TABLE}.tBodies[0].rows).map(row => row.cells[0].textContent)"
Open = Callable[..., Tab]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = BROWSER.path()
    if program is None:
        pytest.skip(BROWSER.why_skipped())
    found = Browser(program, tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(committed: Page, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(committed, tmp_path_factory.mktemp("page") / "report", single_file=False).page


@pytest.fixture
def visit(browser: Browser, page: Path) -> Iterator[Open]:
    """Opens the page; at the end nothing may have been said in the console."""
    tabs: list[Tab] = []

    def visit(**options: object) -> Tab:
        tabs.append(Tab(browser, page, **options))  # type: ignore[arg-type]
        return tabs[-1]

    yield visit
    for tab in tabs:
        assert tab.complaints() == []
        tab.close()


def test_columns_sort_up_down_and_back_to_the_order_of_the_paper(visit: Open) -> None:
    tab = visit()
    before = tab.evaluate(FIRST_CELLS)
    click = f"{TABLE}.tHead.rows[1].cells[2].querySelector('button').click()"
    sort = f"{TABLE}.tHead.rows[1].cells[2].getAttribute('aria-sort')"
    values = f"Array.from({TABLE}.tBodies[0].rows).map(row => parseFloat(row.cells[2].textContent))"
    tab.evaluate(click)
    assert tab.evaluate(sort) == "ascending"
    ascending = tab.evaluate(values)
    assert ascending == sorted(ascending)
    tab.evaluate(click)
    assert tab.evaluate(sort) == "descending"
    assert tab.evaluate(values) == ascending[::-1]
    tab.evaluate(click)
    assert tab.evaluate(sort) is None
    assert tab.evaluate(FIRST_CELLS) == before


def test_filter_leaves_the_rows_with_all_of_its_words(visit: Open) -> None:
    tab = visit()
    seen = "Array.from(document.querySelectorAll('#tables details.row')).filter(one => one.offsetParent).length"
    every = tab.evaluate(seen)
    write = "const box = document.getElementById('filter'); box.value = '%s'; box.dispatchEvent(new Event('input'))"
    tab.evaluate(f"{{{write % 'table2/l6'}}}")
    assert 1 <= tab.evaluate(seen) < every
    assert tab.evaluate("document.getElementById('shown').textContent").endswith(" shown")
    tab.evaluate(f"{{{write % ''}}}")
    assert tab.evaluate(seen) == every


def test_keyboard_reaches_the_verdict_first_and_opens_evidence(visit: Open) -> None:
    tab = visit()
    tab.press("Tab", 9)
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.evaluate("document.querySelector('details.row summary').focus()")
    assert not tab.evaluate("document.activeElement.parentElement.open")
    tab.press("Enter", 13, "\r")
    assert tab.evaluate("document.activeElement.parentElement.open")
    tab.press("Tab", 9)
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


@pytest.mark.parametrize("scripts", [True, False])
def test_link_of_a_number_opens_its_evidence_with_and_without_scripts(visit: Open, scripts: bool) -> None:
    tab = visit(scripts=scripts, fragment="#row:tiny:table2/L6")
    inside = "document.getElementById('row:tiny:table2/L6')"
    assert tab.evaluate(f"{inside}.parentElement.open")
    assert tab.evaluate(f"Math.abs({inside}.getBoundingClientRect().top) < innerHeight")


def test_page_reads_without_scripts_and_shows_no_control_that_does_nothing(visit: Open) -> None:
    tab = visit(scripts=False)
    assert tab.evaluate("document.querySelectorAll('#tables table').length") > 4
    assert tab.evaluate("Array.from(document.querySelectorAll('button, input')).every(one => !one.offsetParent)")


@pytest.mark.parametrize("width", [390, 1280])
def test_page_is_never_wider_than_its_window(visit: Open, width: int) -> None:
    tab = visit(width=width, height=844)
    tab.evaluate("document.getElementById('open-all').click()")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    if width == 390:
        assert tab.evaluate(f"{TABLE}.parentElement.scrollWidth > {TABLE}.parentElement.clientWidth")
        tab.evaluate(f"{TABLE}.parentElement.scrollLeft = 200")
        assert tab.evaluate(f"{TABLE}.tBodies[0].rows[0].cells[0].getBoundingClientRect().left") >= 0


def test_on_a_phone_what_stands_side_by_side_stands_below_each_other(visit: Open) -> None:
    tops = "Array.from(document.querySelector('.beside').children).map(one => one.getBoundingClientRect().top)"
    name, value = (f"document.querySelector('dl {tag}').getBoundingClientRect().top" for tag in ("dt", "dd"))
    for width, below in ((390, True), (1280, False)):
        tab = visit(width=width, height=844)
        tab.evaluate("document.getElementById('open-all').click()")
        assert (tab.evaluate(tops)[1] - tab.evaluate(tops)[0] > 100) == below
        assert (tab.evaluate(value) - tab.evaluate(name) > 10) == below


def test_dark_mode_has_other_colours_and_both_can_be_read(visit: Open) -> None:
    pairs = {}
    for dark in (False, True):
        tab = visit(dark=dark)
        colours = {
            name: tab.evaluate(f"getComputedStyle(document.querySelector('{name}')).color")
            for name in ("body", ".faint", "a[href]", ".answer", ".good", ".open", ".none")
        }
        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert all(contrast(colour, paper) >= 4.5 for colour in colours.values()), (dark, paper, colours)
        pairs[dark] = paper
        stroke = tab.evaluate("getComputedStyle(document.querySelector('svg.figure path')).stroke")
        assert stroke == colours["body"]
    assert pairs[False] != pairs[True]


def test_page_prints_without_controls_and_without_closed_details(visit: Open) -> None:
    tab = visit()
    assert tab.printed().startswith(b"%PDF-")
    tab.send("Emulation.setEmulatedMedia", media="print")
    hidden = "getComputedStyle(document.querySelector('%s')).display"
    assert [tab.evaluate(hidden % name) for name in ("nav", ".tools", "details.run")] == ["none"] * 3
    tab.evaluate("document.querySelector('details.run').open = true")
    assert tab.evaluate(hidden % "details.run[open]") != "none"


def test_hostile_text_becomes_no_dialog_no_request_and_no_element(
    browser: Browser, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile_project(store, tmp_path, monkeypatch)
    page = write(page_of(scales(["all", "table9"], ["tiny"], None, None)), tmp_path / "report.html", single_file=True)
    tab = Tab(browser, page.page)
    tab.evaluate("document.getElementById('open-all').click()")
    tab.evaluate("for (const button of document.querySelectorAll('th button')) button.click()")
    tab.evaluate(
        "const f = document.getElementById('filter'); f.value = '<script>'; f.dispatchEvent(new Event('input'))"
    )
    assert tab.evaluate("document.body.innerText.includes('<script>alert(1)</script>')")
    assert tab.evaluate("document.querySelectorAll('script').length") == 1
    assert tab.evaluate("document.querySelectorAll('img').length") == 1
    handlers = "Array.from(document.querySelectorAll('*')).flatMap(one => one.getAttributeNames()).filter(one => %s)"
    assert tab.evaluate(handlers % "one.startsWith('on')") == []
    links = "Array.from(document.links).map(one => one.protocol).filter(one => one !== 'file:' && one !== 'data:')"
    assert tab.evaluate(links) == []
    requests = [event["params"]["request"]["url"] for event in tab.events("Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith("data:")] == [page.page.as_uri()]
    assert tab.events("Page.javascriptDialogOpening") == []
    assert [text for text in tab.complaints() if "jpeg" not in text] == []
    tab.close()


def test_page_runs_no_script_but_its_own(visit: Open) -> None:
    tab = visit()
    add = "const s = document.createElement('script'); s.textContent = 'window.foreign = 1'; document.body.append(s)"
    tab.evaluate(f"{{{add}}}")
    assert tab.evaluate("typeof window.foreign") == "undefined"
    assert tab.complaints() != []
    tab.browser.events.clear()


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2 between two colours as the browser writes them."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
