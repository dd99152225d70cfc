"""The comparison of runs and sweeps: tables, contrasts and a figure.

comparison.csv                one row per condition: choices, scores, all metrics, cost, the options that differ
contrasts.csv                 one row per contrast
comparison.md, comparison.tex both tables for a page or a paper
comparison.png, .pdf          the learning curves
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from fa_jax.checks import BadOption, nearest
from fa_jax.records.conditions import Condition, conditions, differences
from fa_jax.records.files import write_text
from fa_jax.records.reader import Run
from fa_jax.reports.contrasts import Contrast, columns_of, compute_contrasts, declared, differing_options, planned
from fa_jax.reports.export import latex, markdown, write_contrasts, write_scores
from fa_jax.reports.labels import labels
from fa_jax.reports.tables import contrast_table, score_table, terminal
from fa_jax.text import say

REFERENCE = "bp"
"""The rule that all others are contrasted with by default."""
NAMED = 6
"""The number of items that a note lists."""


class Comparison(NamedTuple):
    """Conditions with their labels and contrasts."""

    conditions: list[Condition]
    names: list[str]
    metric: str | None
    """A column; None: the main metric of each condition."""
    contrasts: list[Contrast]
    note: str
    """Why contrasts are missing, and how the code of the runs differs; empty if there is nothing to say."""


def compare(
    runs: Sequence[Run], *, metric: str | None = None, against: str | None = None, contrasts: str | None = None
) -> Comparison:
    """Returns the comparison of runs.

    Args:
      runs: at least one.
      metric: a column; None: the main metric of each condition.
      against: the rule, or the label of the condition, that the others are contrasted with; None: bp, if it is there.
      contrasts: contrasts such as `dfa:bp,dfa:fa` instead.

    Raises:
      BadOption: if there is no such metric, rule or condition.
    """
    compared = conditions(runs)
    names = labels([condition.run for condition in compared])
    columns = list(columns_of(compared))
    if metric is not None and metric not in columns:
        raise BadOption(f"must be one of {', '.join(columns)}; got {metric!r}{nearest(metric, columns)}", "metric")
    rules = [condition.run.choices["rule"] for condition in compared]
    notes = []
    if contrasts is not None:
        pairs = declared(contrasts, compared, names, rules)
    elif against is None and REFERENCE not in rules:
        pairs = []
        if len(compared) > 1:
            notes.append(f"no contrasts: {REFERENCE} is not among the rules; against= names another reference")
    else:
        reference = against or REFERENCE
        pairs = planned(compared, names, reference)
        others = len(compared) - sum(reference in pair for pair in zip(rules, names, strict=True))
        if len(pairs) < others:
            notes.append(_note_unpaired(compared, names, [i for i, _ in pairs], reference))
    used = [run.environment for condition in compared for run in condition.used]
    if differing := differences(used):
        notes.append(f"these runs are of different code or settings: {_first(differing, ', ')}")
    computed = compute_contrasts(compared, [(i, j, metric or compared[j].run.main_metric) for i, j in pairs])
    tested = [(contrast.condition, contrast.against) for contrast in computed]
    missing = [(i, j) for i, j in pairs if (i, j) not in tested]
    unfinished = [pair for pair in missing if not all(compared[k].run.is_finished for k in pair)]
    for pairs_of_reason, reason in (
        (unfinished, "since a run is not finished"),
        ([pair for pair in missing if pair not in unfinished], "since not both have the metric"),
    ):
        if pairs_of_reason:
            texts = [f"{names[i]} - {names[j]}" for i, j in pairs_of_reason]
            notes.append(f"without a test, {reason}: {', '.join(texts)}")
    return Comparison(compared, names, metric, computed, "; ".join(notes))


def _note_unpaired(compared: Sequence[Condition], names: Sequence[str], paired: Sequence[int], against: str) -> str:
    """Says which conditions have no contrast, how they differ from the reference, and how to get one."""
    rules = [condition.run.choices["rule"] for condition in compared]
    references = [i for i, pair in enumerate(zip(rules, names, strict=True)) if against in pair]
    unpaired = [i for i in range(len(compared)) if i not in (*paired, *references)]
    reasons = []
    for i in unpaired:
        differing = min((differing_options(compared[i], compared[j]) for j in references), key=len)
        reason = (
            f"differs also in {_first(differing, ', ')}" if differing else f"matches several conditions of {against}"
        )
        reasons.append(f"{names[i]} {reason}")
    example = f"contrasts='{names[unpaired[-1]]}:{names[references[0]]}'"
    return f"without a contrast: {_first(reasons, '; ')}. {example} asks for it all the same"


def _first(items: Sequence[str], separator: str) -> str:
    """Returns the first items, and the number of the others."""
    more = [f"and {len(items) - NAMED} more"] if len(items) > NAMED else []
    return separator.join([*items[:NAMED], *more])


def show(comparison: Comparison, console: Console) -> None:
    """Prints the tables."""
    console.print(terminal(score_table(comparison.conditions, comparison.names, comparison.metric), console.width))
    if comparison.contrasts:
        table = contrast_table(comparison.contrasts, comparison.names, columns_of(comparison.conditions))
        console.print(terminal(table, console.width))
    if comparison.note:
        say(console, comparison.note)
    for condition in comparison.conditions:
        for run in (*condition.used, *condition.left_out):
            if run.status["status"] == "failed":
                say(console, f"failed: {run.folder}: {run.status['reason']}")


def write(comparison: Comparison, folder: Path) -> None:
    """Writes the tables and the figure into a folder, which is created; earlier ones are replaced."""
    from fa_jax.reports.figures import comparison_figure  # imports matplotlib, which is slow

    compared, names, metric = comparison.conditions, comparison.names, comparison.metric
    folder.mkdir(parents=True, exist_ok=True)
    write_scores(compared, names, folder / "comparison.csv", metric)
    write_contrasts(comparison.contrasts, names, folder / "contrasts.csv")
    tables = [score_table(compared, names, metric)]
    if comparison.contrasts:
        tables.append(contrast_table(comparison.contrasts, names, columns_of(compared)))
    write_text(folder / "comparison.md", "\n".join(map(markdown, tables)))
    write_text(folder / "comparison.tex", "\n".join(map(latex, tables)))
    comparison_figure([condition.run for condition in compared], folder / "comparison", metric)
