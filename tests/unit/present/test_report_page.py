"""The report page in a browser: no error, no network, working filters and charts, accessible, narrow and dark."""

import os
import shutil
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from prophet_moe.claims.verdict import VERDICTS
from tests.unit.present.pages import CLAIMS, made_page

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000
"""Milliseconds that a busy machine may take to draw all charts."""
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """The address of a page on the disk."""
    return made_page(tmp_path_factory.mktemp("page")).as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of the system; without one the tests are skipped, or fail where REQUIRE_CHROMIUM is set."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        told = "no Chromium. To get it: apt-get install chromium"
        if os.environ.get("REQUIRE_CHROMIUM"):
            pytest.fail(told)
        pytest.skip(told)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(OPTIONS), timeout=PATIENCE)
        yield started
        started.close()


class Seen:
    """A page with what it said and asked for since it was opened."""

    def __init__(self, browser: Browser, address: str, scheme: str, width: int) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        drawn(self.page, scheme)


def drawn(page: Page, scheme: str) -> None:
    """Wait until all charts are drawn in the colours of a scheme."""
    page.wait_for_selector(f"html[data-drawn={scheme}]", timeout=PATIENCE)


@pytest.fixture(scope="module")
def light(browser, address) -> Seen:
    """The page on a wide and light screen."""
    return Seen(browser, address, "light", 1280)


@pytest.fixture(scope="module")
def narrow(browser, address) -> Seen:
    """The page on a narrow and dark screen, everything opened."""
    seen = Seen(browser, address, "dark", 400)
    open_all(seen.page)
    return seen


def open_all(page: Page) -> None:
    """Open every block that can be closed, and wait for the tables in them."""
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    page.wait_for_function("document.querySelectorAll('details[data-table] table:not(.dataTable)').length === 0")


def rows(page: Page) -> int:
    """The number of claims that the filters leave, as the table tells it."""
    told = page.locator("#claims-table_info").inner_text()
    return int(told.split(" entries")[0].split()[-1].replace(",", ""))


def test_page_says_no_error_and_asks_for_no_network(light, narrow, address):
    for seen in (light, narrow):
        assert seen.said == []
        assert [url for url in seen.asked if url != address and not url.startswith("data:")] == []


def test_answer_and_counts_of_verdicts_come_first(light):
    assert "Within 1.2x the time" in light.page.locator(".lead").inner_text()
    assert light.page.locator("#answer .verdicts li").count() == len(VERDICTS)
    assert (
        light.page.locator("#answer h3").first.inner_text() == f"Verdicts on {CLAIMS} claims of the original documents"
    )


def test_list_boxes_filter_the_claims(light):
    page = light.page
    verdict, document, model = (
        page.locator(f"#claims select[name={name}]") for name in ("verdict", "document", "model")
    )
    verdict.select_option("corrected")
    assert set(page.locator("#claims-table tbody td.verdict").all_inner_texts()) == {"corrected"}
    verdict.select_option("")
    model.select_option("OLMoE-1B-7B")
    assert rows(page) == CLAIMS / 3
    document.select_option("002")
    assert rows(page) == CLAIMS / 15
    document.select_option("")
    model.select_option("")
    assert page.locator("#claims-table tbody tr").count() == 25


def test_search_finds_a_claim_by_its_reason(light):
    page = light.page
    search = page.locator("#claims").get_by_label("Search")
    search.fill('"reason number 41"')
    expect(page.locator("#claims-table tbody tr")).to_have_count(1)
    page.locator("#claims-table summary").click()
    assert page.locator("#claims-table dd").first.inner_text() == "Reason number 41 <of a test> & more."
    search.fill("")
    expect(page.locator("#claims-table tbody tr")).to_have_count(25)


def test_a_heading_sorts_the_claims(light):
    page = light.page
    heading = page.locator("#claims-table th").filter(has_text="Calibrated")
    for order in ("ascending", "descending"):
        heading.click()
        expect(heading).to_have_attribute("aria-sort", order)
    assert page.locator("#claims-table tbody tr").first.locator("td").nth(4).inner_text() == "2.48 x"


def test_every_image_loads(light):
    sizes = light.page.evaluate("[...document.images].map((each) => each.naturalWidth)")
    assert len(sizes) == 3
    assert min(sizes) > 0


@pytest.mark.parametrize("chart", ["chart-frontier", "chart-break-even", "chart-observed", "chart-hit-rates"])
def test_every_picker_changes_its_chart(light, chart):
    block = light.page.locator(f"[data-chart={chart}]")
    boxes = block.locator("select")
    for number in range(boxes.count()):
        box, before = boxes.nth(number), block.locator("svg").inner_html()
        chosen = box.input_value()
        other = next(value for value in box.locator("option").all_inner_texts() if value != chosen)
        box.select_option(other)
        light.page.wait_for_function(
            "([name, html]) => document.querySelector(`[data-chart=${name}] svg`).innerHTML !== html",
            arg=[chart, before],
        )
        box.select_option(chosen)
    assert boxes.count() >= 3


def test_a_choice_without_values_is_told_in_the_chart(light):
    block = light.page.locator("[data-chart=chart-frontier]")
    model = block.get_by_label("Model")
    chosen = model.input_value()
    model.select_option("DeepSeek-V3-671B")
    expect(block.locator("svg")).to_contain_text("no value for this choice")
    model.select_option(chosen)


def test_a_point_under_the_pointer_tells_its_values(light):
    block = light.page.locator("[data-chart=chart-frontier]")
    block.scroll_into_view_if_needed()
    block.locator(".mark-symbol path").nth(5).hover(force=True)
    told = light.page.locator("#vg-tooltip-element")
    expect(told).to_contain_text("resident experts of a layer")
    light.page.mouse.move(0, 0)


def test_chosen_model_and_gpu_show_their_plan(light):
    plans = light.page.locator("#plans")
    plans.get_by_label("Model").select_option("OLMoE-1B-7B")
    plans.get_by_label("GPU").select_option("V100-32GB")
    plans.get_by_label("Batch size").select_option("1")
    assert plans.locator("article:visible h3").all_inner_texts() == ["OLMoE-1B-7B on V100-32GB, batch 1"]


def test_an_opened_table_has_its_rows_and_search(light):
    table = light.page.locator("#tables-table1-kv-extension-a100-80gb")
    table.locator("summary").first.click()
    expect(table.locator("tbody tr")).to_have_count(16)
    table.get_by_label("Search").fill("Mixtral")
    expect(table.locator("tbody tr")).to_have_count(2)
    assert table.locator("tbody tr").first.locator("td").first.inner_text().startswith("Mixtral")


def test_a_link_to_a_closed_table_opens_it(light):
    light.page.evaluate("location.hash = '#tables-table16-where-it-pays'")
    expect(light.page.locator("#tables-table16-where-it-pays tbody tr")).to_have_count(25)


def test_the_first_tab_stop_skips_to_the_answer(browser, address):
    seen = Seen(browser, address, "light", 1280)
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.textContent") == "Skip to the answer"
    seen.page.keyboard.press("Enter")
    assert seen.page.evaluate("document.activeElement.id") == "answer"
    seen.page.emulate_media(color_scheme="dark")
    drawn(seen.page, "dark")
    seen.context.close()


def test_nothing_is_wider_than_a_narrow_screen(narrow):
    wider = narrow.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 0
    width = "(box) => box.querySelector('svg').getBoundingClientRect().width - box.clientWidth"
    charts = narrow.page.evaluate(f"[...document.querySelectorAll('.drawing')].map({width})")
    assert max(charts) <= 1


@pytest.mark.parametrize("scheme", ["light", "narrow"])
def test_axe_has_no_serious_finding(request, scheme):
    page = request.getfixturevalue(scheme).page
    open_all(page)
    told = Axe().run(page, options={"resultTypes": ["violations"]}).response
    serious = [each for each in told["violations"] if each["impact"] in SERIOUS]
    assert [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in serious] == []
    assert "color-contrast" in {each["id"] for each in told["passes"]}
