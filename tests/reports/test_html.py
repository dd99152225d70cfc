"""The report, in a real browser."""

import re
import shutil
import time

import numpy as np
import pytest

from fa_jax.records import writer
from fa_jax.records.reader import find_runs
from fa_jax.reports.comparison import compare
from fa_jax.reports.html import write_report
from tests.reports.conftest import CHOICES, COST

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
MALICE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture
def report(record, tmp_path):
    """The path of a report of three conditions, one of which has failed."""
    record("bp", values=(5.0, 6.0))
    record("dfa", status="failed", options={"rule": {"name": MALICE}})
    write_report(compare(record("fa")), tmp_path / "report.html")
    return tmp_path / "report.html"


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium, without a screen."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, report):
    """Opens the report without a network, and returns its page; errors fail the test."""
    problems, pages = [], []

    def at(width=1280, scheme="light"):
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.context.set_offline(True)
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if "file:" not in request.url[:5] else None)
        page.goto(report.as_uri())
        page.wait_for_selector("#curve-plot .scatterlayer")
        pages.append(page)
        return page

    yield at
    for page in pages:
        page.close()
    assert [problem for problem in problems if not problem.startswith("data:")] == []


def drawn(page, plot="curve-plot"):
    """The names of the mean curves in a plot."""
    return page.evaluate(f"document.getElementById('{plot}').data.filter(t => t.name).map(t => t.name)")


def test_it_needs_nothing_but_itself(report):
    text = re.sub(r"<script>.*?</script>", "", report.read_text(), flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)


def test_it_shows_every_condition_and_hides_what_is_unchecked_by_the_keyboard(opened):
    page = opened()
    names = ["BP", "DFA", "FA"]
    assert drawn(page) == names
    box = page.locator("[data-condition]").nth(1)
    box.focus()
    page.keyboard.press("Space")
    assert drawn(page) == ["BP", "FA"]
    page.locator("[data-choose=none]").press("Enter")
    assert drawn(page) == []
    page.locator("[data-choose=all]").press("Enter")
    assert drawn(page) == drawn(page, "angle-plot") == names


def test_metric_axes_bands_and_seeds_can_be_chosen(opened):
    page = opened()
    assert page.evaluate("document.getElementById('curve-plot').layout.yaxis.title.text") == "test_error"
    traces = "document.getElementById('curve-plot').data.length"
    with_bands = page.evaluate(traces)
    page.locator("#bands").uncheck()
    assert page.evaluate(traces) == with_bands - 3
    page.locator("#seeds").check()
    assert page.evaluate(traces) == with_bands - 3 + 6
    page.locator("#metric").select_option("test_loss")
    page.locator("#log-y").check()
    assert page.evaluate("document.getElementById('curve-plot').layout.yaxis.title.text") == "test_loss"
    assert page.evaluate("document.getElementById('curve-plot').layout.yaxis.type") == "log"
    page.locator("#angle-of").select_option(label="all layers of FA")
    assert drawn(page, "angle-plot") == ["layer 0"]


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (390, "dark"),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
        pytest.param(390, "light", marks=pytest.mark.slow),
    ],
)
def test_it_is_readable_on_any_screen(opened, width, scheme):
    page = opened(width, scheme)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    ink, paper = (page.evaluate(f"getComputedStyle(document.body).{what}") for what in ("color", "backgroundColor"))
    brightness = [sum(map(int, re.findall(r"\d+", one)[:3])) / 765 for one in (ink, paper)]
    assert (brightness[0] > brightness[1]) == (scheme == "dark")
    assert abs(brightness[0] - brightness[1]) > 0.7
    page.locator("#theme").press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == {"light": "dark", "dark": "light"}[scheme]


def test_what_a_config_says_is_text_and_nothing_else(opened):
    page = opened()
    assert page.title() == "mnist: bp, dfa, fa"
    assert MALICE in page.locator("#run").inner_text()


@pytest.mark.slow
def test_a_report_of_a_thousand_runs_opens_in_three_seconds(chromium, tmp_path, monkeypatch):
    made = writer.environment()
    monkeypatch.setattr(writer, "environment", lambda command: made)
    random = np.random.default_rng(0)
    layers = [f"{kind}_angle_{i}" for kind in ("signal", "update", "weight") for i in range(3)]
    for i in range(1000):
        options = {"optimizer": {"learning_rate": i // 5}, "spacing": "linear", "seeds": 5, "epochs": 1}
        rule = ("bp", "fa", "dfa", "ifa", "usf")[i % 5]
        run = writer.Writer(tmp_path / f"{i}_{rule}", {"choices": {"rule": rule, **CHOICES}, **options})
        for step in range(21):
            metrics = {"test_loss": 1 + random.random(5), "test_error": 90 * random.random(5)}
            metrics |= {layer: 90 * random.random(5) for layer in layers}
            run.evaluation(range(5), step, 100 * step, step / 20, metrics)
        run.summary({**COST, "seed_steps_per_second": 1000.0})
        run.status("finished")
        run.close()
    begun = time.monotonic()
    write_report(compare(find_runs(tmp_path)), tmp_path / "report.html")
    written = time.monotonic() - begun
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto((tmp_path / "report.html").as_uri())
    opened = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
    size = (tmp_path / "report.html").stat().st_size / 2**20
    print(f"written in {written:.1f} s, {size:.1f} MiB, open in {opened:.1f} s")
    assert len(drawn(page)) == 8
    assert opened < 3


def test_failures_and_folders_are_listed(opened, report):
    page = opened()
    assert "it broke" in page.locator("#trouble").inner_text()
    links = page.locator("#runs a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert len(links) == 3
    assert all((report.parent / link).is_dir() for link in links)
