"""The HTML report, its data, and the page in a real browser."""

import json
import re
import shutil
import time

import numpy as np
import pytest

from fa_jax.records import writer
from fa_jax.records.reader import find_runs
from fa_jax.reports import page_data
from fa_jax.reports.comparison import compare
from fa_jax.reports.html import write_report
from tests.reports.conftest import CHOICES, COST, declare, make_run

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


def read_data(path):
    """The data of the figures in a report."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())[1])


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium, headless."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    playwright_api = pytest.importorskip("playwright.sync_api")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_report(chromium, report):
    """Opens the report without a network, and returns its page; errors fail the test."""
    problems, pages = [], []

    def open_page(width=1280, scheme="light"):
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.context.set_offline(True)
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if "file:" not in request.url[:5] else None)
        page.goto(report.as_uri())
        page.wait_for_selector("#curve-plot .scatterlayer")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [problem for problem in problems if not problem.startswith("data:")] == []


def drawn(page, plot="curve-plot"):
    """The names of the mean curves in a plot."""
    return page.evaluate(f"document.getElementById('{plot}').data.filter(t => t.name).map(t => t.name)")


def test_a_report_refers_to_nothing_on_the_network(report):
    text = re.sub(r"<script>.*?</script>", "", report.read_text(), flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)


@pytest.mark.parametrize(
    ("metric", "best"),
    [
        ("error", range(page_data.SHOWN)),
        ("accuracy", range(page_data.SHOW_ALL + 1 - page_data.SHOWN, page_data.SHOW_ALL + 1)),
    ],
)
def test_of_many_conditions_those_with_the_best_main_metric_are_shown_first(record, tmp_path, metric, best):
    for i in range(page_data.SHOW_ALL + 1):
        runs = record(f"rule{i}", [metric], values=(i + 1.0, i + 1.0))
    write_report(compare(runs), tmp_path / "report.html")
    assert read_data(tmp_path / "report.html")["first"] == list(best)
    assert f"with the best test_{metric}</button>" in (tmp_path / "report.html").read_text()


def test_of_many_settings_of_rules_none_is_shown_first_for_its_test_score(record, tmp_path):
    for i in range(page_data.SHOW_ALL + 1):
        rate = {"optimizer": {"learning_rate": i + 1}}
        runs = record("fa" if i < page_data.SHOW_ALL - 1 else "bp", values=(9.0 - i / 9, 9.0), options=rate)
    write_report(compare(runs), tmp_path / "report.html")
    assert read_data(tmp_path / "report.html")["first"] == [*range(page_data.SHOWN - 2), 15, 16]
    assert f"{page_data.SHOWN} of them</button>" in (tmp_path / "report.html").read_text()


def test_all_of_a_few_conditions_are_shown_first(report):
    assert read_data(report)["first"] == [0, 1, 2]


@pytest.mark.parametrize("metrics", [("error", "balanced_error"), ("balanced_error", "error"), ("nse", "error")])
def test_a_report_has_the_metrics_as_the_task_declares_them(record, tmp_path, metrics):
    write_report(compare(record("fa", metrics)), tmp_path / "report.html")
    data = read_data(tmp_path / "report.html")
    assert data["main"] == f"test_{metrics[0]}"
    assert sorted(data["metrics"]) == sorted([*(f"test_{metric}" for metric in metrics), "test_loss"])
    axes = {"error": "test error (%)", "balanced_error": "test balanced error (%)", "nse": "test NSE"}
    for metric in metrics:
        assert data["axes"][f"test_{metric}"] == axes[metric]
        assert data["bounds"][f"test_{metric}"] == ([None, None] if metric == "nse" else [0, 100])
    assert data["logarithmic"] == ["test_nse"] * (metrics[0] == "nse")
    assert data["angles"] == {"signal_angle": [0]}
    assert "signal_norm_0" not in data["axes"]


def test_the_page_shows_every_condition_and_hides_the_unchecked_ones_by_keyboard(open_report):
    page = open_report()
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


def test_metric_axes_bands_and_seeds_can_be_chosen(open_report):
    page = open_report()
    assert page.evaluate("document.getElementById('curve-plot').layout.yaxis.title.text") == "test error (%)"
    traces = "document.getElementById('curve-plot').data.length"
    assert page.evaluate(traces) == 3 + 6  # of two seeds, single ones instead of bands
    page.locator("#bands").uncheck()
    assert page.evaluate(traces) == 3
    page.locator("#seeds").check()
    assert page.evaluate(traces) == 3 + 6
    page.locator("#axis").select_option("epochs")
    assert page.evaluate("document.getElementById('curve-plot').layout.xaxis.title.text") == "epochs"
    assert page.evaluate("document.getElementById('curve-plot').data[0].x") == [0, 1]
    page.locator("#log-x").check()  # on a logarithmic axis there is no 0
    assert page.evaluate("document.getElementById('curve-plot').data[0].x") == [1]
    page.locator("#metric").select_option("test_loss")
    page.locator("#log-y").check()
    assert page.evaluate("document.getElementById('curve-plot').layout.yaxis.title.text") == "test loss"
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
def test_the_page_is_readable_on_any_screen(open_report, width, scheme):
    page = open_report(width, scheme)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert page.evaluate(wide) == 0
    colours = [page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")]
    ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in colours)
    assert (ink > paper) == (scheme == "dark")
    assert abs(ink - paper) > 0.7
    page.locator("#theme").press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == {"light": "dark", "dark": "light"}[scheme]


def test_a_table_is_sorted_by_the_heading_that_is_pressed(open_report):
    page = open_report()
    column = "[...document.querySelectorAll('#scores tbody tr')].map(row => row.cells[1].textContent)"
    heading = page.locator("#scores .sort").nth(1)
    for order, shown in (("ascending", ["3", "3", "6"]), ("descending", ["6", "3", "3"])):
        heading.press("Enter")
        assert page.evaluate(column) == shown
        assert page.locator("#scores th[aria-sort]").get_attribute("aria-sort") == order
    page.locator("[data-condition]").first.uncheck()  # boxes go with their rows
    assert drawn(page) == ["DFA", "FA"]


def test_figures_come_before_tables_and_these_before_lists(report):
    text = report.read_text()
    sections = re.findall(r'<section id="([a-z-]+)">', text)
    assert sections == ["curves", "angles", "scores", "contrasts", "cost", "failures", "run", "runs", "environment"]


def test_a_sweep_has_a_plot_with_the_values_chosen_on_validation(tmp_path):
    errors = {0.1: (9, 5), 0.3: (4, 6), 1.0: (8, 8)}
    runs = [
        make_run(rule, np.array([test, test + 1.0]), rate=rate, validation=np.array([validation, validation]))
        for rule in ("bp", "fa")
        for rate, (test, validation) in errors.items()
    ]
    write_report(compare(runs), tmp_path / "report.html")
    (rates,) = read_data(tmp_path / "report.html")["rates"]
    assert [line["x"] for line in rates["lines"]] == [[0.1, 0.3, 1.0]] * 2
    assert [line["chosen"] for line in rates["lines"]] == [0, 0]
    assert rates["log_x"]
    assert [line["low"] for line in rates["lines"]] == [[], []]  # two seeds


def test_values_of_a_config_are_shown_as_text(open_report):
    page = open_report()
    assert page.title() == "mnist: BP, DFA, FA"
    assert MALICE in page.locator("#run").inner_text()


def test_failures_and_folders_are_listed(open_report, report):
    page = open_report()
    assert "it broke" in page.locator("#failures").inner_text()
    links = page.locator("#runs a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert len(links) == 3
    assert all((report.parent / link).is_dir() for link in links)


@pytest.mark.slow
def test_a_report_of_a_thousand_runs_opens_in_three_seconds(chromium, tmp_path, monkeypatch):
    environment = writer.environment()
    monkeypatch.setattr(writer, "environment", lambda *_: environment)
    random = np.random.default_rng(0)
    angles = [f"{kind}_angle_{i}" for kind in ("signal", "update", "weight") for i in range(3)]
    for i in range(1000):
        options = {"optimizer": {"learning_rate": i // 5}, "spacing": "linear", "seeds": 5, "epochs": 1}
        rule = ("bp", "fa", "dfa", "ifa", "usf")[i % 5]
        config = {"choices": {"rule": rule, **CHOICES}, **options}
        run = writer.Writer(tmp_path / f"{i}_{rule}", config, declare("error"))
        for step in range(21):
            metrics = {"test_loss": 1 + random.random(5), "test_error": 90 * random.random(5)}
            metrics |= {angle: 90 * random.random(5) for angle in angles}
            run.evaluation(range(5), step, 100 * step, step / 20, metrics)
        run.summary({**COST, "seed_steps_per_second": 1000.0})
        run.status("finished")
        run.close()
    start = time.monotonic()
    write_report(compare(find_runs(tmp_path)), tmp_path / "report.html")
    written = time.monotonic() - start
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto((tmp_path / "report.html").as_uri())
    opened = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
    size = (tmp_path / "report.html").stat().st_size / 2**20
    print(f"written in {written:.1f} s, {size:.1f} MiB, open in {opened:.1f} s")
    assert len(drawn(page)) == 8
    assert opened < 3
