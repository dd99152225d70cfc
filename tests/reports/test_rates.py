"""A sweep of one number: what is best is chosen on validation examples and reported on test examples."""

import csv
import re

import matplotlib as mpl
import numpy as np
import pytest

from fa_jax.reports.comparison import compare, write
from fa_jax.reports.paper import paper_table
from fa_jax.reports.rates import UNCHOSEN, rates_notes, rates_tables
from fa_jax.reports.rates_figure import rates_figure
from fa_jax.reports.selection import REMEDY
from tests.reports.conftest import make_run

SEEDS = np.array([0.0, 1.0, 2.0])
TEST = {0.1: 9.0, 0.3: 4.0, 1.0: 8.0}
TIED = {0.1: 6.0, 0.3: 5.0, 1.0: 5.0}
VALIDATION = {0.1: 5.0, 0.3: 6.0, 1.0: 7.0}


def sweep(rules=("bp", "fa"), validated=True, **options):
    return [
        make_run(rule, test + SEEDS, rate=rate, validation=VALIDATION[rate] + SEEDS if validated else None, **options)
        for rule in rules
        for rate, test in TEST.items()
    ]


def test_values_are_chosen_on_validation_and_reported_on_test():
    compared = compare(sweep())
    (rates,) = compared.rates
    assert (rates.option, rates.values, rates.metric) == ("optimizer.learning_rate", [0.1, 0.3, 1.0], "test_error")
    assert [(line.name, line.chosen) for line in rates.lines] == [("BP", 0.1), ("FA", 0.1)]  # not 0.3, the best on test
    grid, chosen = rates_tables(compared.conditions, rates)
    assert grid.headings == ["run", "0.1", "0.3", "1"]
    assert grid.rows[0] == ["BP", "10.0", "5.0", "9.0"]
    assert grid.bold == {(0, 1), (1, 1)}
    assert chosen.rows[0][:3] == ["BP", "0.1", "6.0"]
    assert chosen.rows[0][3].startswith("10.0 ± 2.5")
    assert "at the edge of its values, so that a better one may lie outside: BP, FA" in chosen.caption


def test_ties_on_validation_are_named_and_count_as_at_the_edge():
    compared = compare([make_run("fa", SEEDS, rate=rate, validation=v + 0 * SEEDS) for rate, v in TIED.items()])
    (line,) = compared.rates[0].lines
    assert (line.chosen, line.tied) == (0.3, (1.0,))
    _, chosen = rates_tables(compared.conditions, compared.rates[0])
    assert "tied on validation: FA: 0.3 is tied with 1" in chosen.caption
    assert "may lie outside: FA" in chosen.caption
    figure = rates_figure(compared.conditions, compared.rates)
    assert any("of tied values the lowest" in text.get_text().replace("\n", " ") for text in figure.texts)


def test_without_validation_no_value_is_called_the_best():
    compared = compare(sweep(validated=False))
    (rates,) = compared.rates
    (grid,) = rates_tables(compared.conditions, rates)
    assert [line.chosen for line in rates.lines] == [None, None]
    assert not grid.bold
    assert grid.caption.endswith(UNCHOSEN)


def test_bold_is_among_settings_of_a_rule_the_one_that_validation_chooses_and_none_without():
    runs = [*sweep(("fa",)), make_run("bp", 7 + 0.1 * SEEDS, validation=SEEDS)]
    compared = compare(runs)
    table = paper_table(compared.conditions, compared.names)
    assert [table.rows[i][0] for i, _ in table.bold] == [
        "BP learning_rate=0.1"
    ]  # although FA with 0.3 is better on test
    assert "of several settings of a rule, the one of the best validation error can be bold" in table.caption
    for only in (sweep(validated=False), sweep(("fa",), validated=False)):
        compared = compare(only)
        table = paper_table(compared.conditions, compared.names)
        assert not table.bold
        assert re.search(r"nothing is bold in test error on mnist: (BP and )?FA ha.* several settings", table.caption)
    assert paper_table(compared.conditions, compared.names, ["test_loss"]).caption.endswith(REMEDY)
    frozen = [make_run("fa", TEST[0.1] + 0.1 * SEEDS, options={"frozen": part}) for part in ([], ["stages_0"])]
    compared = compare([*frozen, make_run("bp", SEEDS)])
    assert len(paper_table(compared.conditions, compared.names).bold) == 1  # a control is no setting


def test_a_rate_that_fails_does_not_take_the_decimals_of_one_that_does_not():
    compared = compare([make_run("fa", [90.0, 40.0, 10.0], rate=1.0), make_run("fa", [4.1, 4.2, 4.4], rate=0.1)])
    table = paper_table(compared.conditions, compared.names, decimals=compared.decimals())
    assert [row[1] for row in table.rows] == ["46.67 ± 100.40", "4.23 ± 0.38"]


def test_a_value_with_which_a_seed_diverged_is_not_chosen_and_one_without_seeds_is_marked():
    runs = sweep(("fa",))
    runs[0].metrics["test_loss"][-1] = np.nan
    runs[2].metrics["test_loss"][:] = np.nan
    compared = compare(runs)
    (rates,) = compared.rates
    assert rates.lines[0].chosen == 0.3
    grid, _ = rates_tables(compared.conditions, rates)
    assert grid.rows[0] == ["FA", "9.5 (1 diverged)", "5.0", "diverged"]
    (axes,) = rates_figure(compared.conditions, compared.rates).findobj(mpl.axes.Axes)
    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert cross.get_xdata() == [1.0]


def test_each_other_setting_has_a_line_and_what_differs_otherwise_is_named():
    runs = sweep(("fa",)) + sweep(("fa",), options={"batch_size": 7})
    runs += [make_run("dfa", SEEDS, options={"batch_size": size}, validation=SEEDS) for size in (1, 2)]
    runs.append(make_run("shallow", SEEDS, rate=0.3, validation=SEEDS))
    compared = compare(runs)
    (rates,) = compared.rates
    assert [(line.name, len(line.conditions)) for line in rates.lines] == [
        ("FA", 3),
        ("FA batch_size=7", 3),
        ("shallow", 1),
    ]
    (note,) = rates_notes(compared.rates, compared.names)
    assert note.endswith("DFA learning_rate=0.1 batch_size=1, DFA learning_rate=0.1 batch_size=2")


def test_runs_that_differ_in_no_number_are_no_sweep():
    assert compare([make_run("bp", SEEDS), make_run("fa", SEEDS)]).rates == []
    texts = [make_run("fa", SEEDS, options={"shuffle": value}) for value in ("yes", "no")]
    assert compare(texts).rates == []


@pytest.mark.parametrize("rules", [("bp", "fa"), ("bp", "fa", "dfa", "ifa", "usf", "frsf", "brsf", "sdfa", "drtp")])
def test_a_figure_has_one_panel_or_one_per_rule(rules):
    compared = compare(sweep(rules))
    figure = rates_figure(compared.conditions, compared.rates)
    shown = [axes for axes in figure.findobj(mpl.axes.Axes) if axes.lines]
    assert len(shown) == (1 if len(rules) < 9 else len(rules))
    assert shown[0].get_xscale() == "log"
    assert "learning_rate" in {text.get_text() for text in figure.findobj(mpl.text.Text)}
    assert sum(line.get_marker() == "o" and line.get_markersize() == 9 for a in shown for line in a.lines) == len(rules)


def test_the_spread_is_that_of_every_table(tmp_path):
    write(compare(sweep()), tmp_path, formats=["markdown", "latex"], spread="sd")
    for name in ("comparison.md", "comparison.tex"):
        text = (tmp_path / name).read_text()
        assert text.count("the standard deviation over seeds") == 2
        assert "half of the 95" not in text
    assert "10.0 ± 1.0" in (tmp_path / "comparison.md").read_text()


def test_files_have_every_value(tmp_path):
    write(compare(sweep()), tmp_path, formats=["csv", "markdown", "latex"])
    with (tmp_path / "rates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], float(row["value"]), row["chosen"]) for row in rows][:2] == [
        ("BP", 0.1, "1"),
        ("BP", 0.3, "0"),
    ]
    assert float(rows[1]["mean"]) == 5
    assert "| BP" in (tmp_path / "comparison.md").read_text()
    text = (tmp_path / "comparison.tex").read_text()
    assert text.count(r"\begin{table}") == 4
    captions = [line for line in text.split("\n") if line.startswith(r"\caption{")]
    assert [caption[9:].partition(",")[0].partition(":")[0] for caption in captions] == [
        r"Mean $\pm$ half of the 95 \% interval of the mean by Student's t",
        r"Test error (\%) on mnist",
        "Test error on mnist",
        r"Test error (\%)",
    ]
    assert not any("\\_error" in caption for caption in captions)
