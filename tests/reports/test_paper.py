"""The table for a paper: the same decimals in a column, real minus signs, and a bold that can be defended."""

import numpy as np
import pytest
from scipy import stats

from fa_jax.checks import BadOption
from fa_jax.records.conditions import conditions
from fa_jax.records.statistics import summarise
from fa_jax.reports.labels import labels
from fa_jax.reports.paper import paper_rows, paper_table
from tests.reports.conftest import make_run

RANDOM = np.random.default_rng(0)
BP = RANDOM.normal(5, 0.3, 12)


def table_of(runs, columns=None, spread="interval"):
    compared = conditions(runs)
    return paper_table(compared, labels([condition.run for condition in compared]), columns, spread)


def bold(table):
    return sorted(table.rows[i][0] for i, _ in table.bold)


def test_means_have_the_decimals_that_show_two_digits_of_their_typical_spread():
    table = table_of([make_run("bp", BP), make_run("fa", 10 * BP)], ["test_error", "n"])
    assert table.headings == ["run", "test error (%)", "n"]
    half = summarise(BP.tolist()).high - BP.mean()
    assert table.rows[0] == ["BP", f"{BP.mean():.2f} ± {half:.2f}", "12"]
    assert table.rows[1] == ["FA", f"{10 * BP.mean():.2f} ± {10 * half:.2f}", "12"]
    sd = table_of([make_run("bp", BP)], ["test_error"], "sd").rows[0][1]
    assert sd == f"{BP.mean():.2f} ± {BP.std(ddof=1):.2f}"


def test_negative_numbers_have_a_minus_sign_and_tiny_ones_a_common_power_of_ten():
    table = table_of([make_run("bp", [-1.25, -1.75], metric="r2")])
    assert table.rows[0][1].startswith("−1.5 ± ")
    assert "$-$1.5 $\\pm$" in table.latex()
    tiny = table_of([make_run("bp", BP / 1e6), make_run("fa", BP / 1e5)], ["test_error"])
    assert tiny.headings[1] == "test error (10⁻⁵ %)"
    assert "test error ($10^{-5}$ \\%)" in tiny.latex()


def test_a_logarithmic_metric_has_a_geometric_mean_and_a_factor():
    values = np.exp(BP - 12)
    (row,) = table_of([make_run("bp", values, metric="nse")], ["test_nse"]).rows
    log = np.log(values)
    factor = np.exp(stats.t.ppf(0.975, 11) * stats.sem(log))
    mantissa = f"{np.exp(log.mean()):.2e}".partition("e")[0]
    assert row[1] == f"{mantissa}×10⁻⁴ ×/÷ {factor:.2f}"


def test_bold_are_the_best_and_those_that_the_paired_test_does_not_tell_from_it():
    runs = [make_run("bp", BP), make_run("fa", BP + RANDOM.normal(0, 0.2, 12)), make_run("dfa", BP + 3)]
    assert bold(table_of(runs)) == ["BP", "FA"]
    assert "paired t-test" in table_of(runs).caption
    # A small difference that all seeds share is one, however the seeds vary; higher may be better.
    assert bold(table_of([make_run("bp", BP), make_run("fa", BP - 0.01 * RANDOM.random(12))])) == ["FA"]
    accuracies = [make_run(rule, 90 + shift + BP, metric="accuracy") for rule, shift in (("bp", 0), ("fa", 1))]
    assert bold(table_of(accuracies)) == ["FA"]


def test_what_differs_from_the_best_besides_the_rule_is_noted():
    runs = [make_run("bp", BP), make_run("fa", BP + 3, options={"batch_size": 7})]
    runs[0].config["batch_size"] = 5
    assert bold(table_of(runs)) == ["BP"]
    assert "differ from BP in more than the rule: FA in batch_size" in table_of(runs).caption


def test_nothing_is_bold_without_seeds_to_compare_or_without_a_rival():
    single = table_of([make_run("bp", [5.0]), make_run("fa", [6.0])])
    assert not single.bold
    assert "nothing is bold in test error" in single.caption
    assert [row[1] for row in single.rows] == ["5.00", "6.00"]
    assert not table_of([make_run("bp", BP)]).bold
    assert not table_of([make_run("bp", BP), make_run("fa", BP)], ["signal_angle_0"]).bold


def test_nothing_is_bold_on_a_task_where_no_condition_differs_from_the_best():
    equal = [make_run("bp", BP[:3]), make_run("fa", np.add(BP[:3], [0.1, -0.2, 0.2]))]
    table = table_of(equal)
    assert not table.bold
    assert table.caption.endswith(
        "nothing is bold in test error on mnist: the paired t-test over seeds tells no condition from the best "
        "(5 %, Holm)"
    )
    decided = [make_run("bp", BP, task="digits"), make_run("fa", BP + 3, task="digits")]
    both = table_of([*equal, *decided])
    assert bold(both) == ["BP digits"]
    assert "nothing is bold in test error on mnist: " in both.caption


def test_columns_may_be_metrics_options_and_counts():
    runs = [make_run("bp", BP, rate=0.1), make_run("bp", BP, rate=0.3)]
    runs[1].metrics["test_loss"][-1] = np.nan
    table = table_of(runs, ["optimizer.learning_rate", "test_error", "n", "diverged", "rule"])
    assert table.headings == ["run", "learning_rate", "test error (%)", "n", "diverged", "rule"]
    assert [row[1] for row in table.rows] == ["0.1", "0.3"]
    assert [row[3:] for row in table.rows] == [["12", "0", "bp"], ["11", "1", "bp"]]
    first, _ = paper_rows(conditions(runs), ["a", "b"], ["optimizer.learning_rate", "test_error"])
    assert first["run"] == "a"
    assert first["test_error_mean"] == BP.mean()
    assert first["optimizer.learning_rate"] == "0.1"
    with pytest.raises(BadOption, match=r"^columns must be of metrics such as test_error.*; did you mean 'test_error'"):
        table_of(runs, ["test_eror"])
    with pytest.raises(BadOption, match=r"^spread must be one of interval, sd; got 'se'"):
        table_of(runs, spread="se")


def test_the_text_for_latex_is_a_whole_environment():
    text = table_of([make_run("bp", BP), make_run("fa", BP + 3)]).latex("mine")
    for part in (r"\begin{table}", r"\caption{", r"\label{tab:mine}", r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(part) == 1
    assert text.rstrip().endswith("\\end{tabular}\n\\end{table}")
    assert r"\textbf{" in text
    assert "$$" not in text
    assert table_of([make_run("bp", BP), make_run("fa", BP + 3)]).markdown().count("**") == 2
