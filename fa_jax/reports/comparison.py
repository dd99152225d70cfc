"""The comparison of any runs and sweeps: tables, contrasts and a figure. No training code is imported for it.

comparison.csv                a row a condition: choices, scores, all metrics, cost, the options that differ
contrasts.csv                 a row a contrast
comparison.md, comparison.tex both tables for a page or a paper
comparison.png, .pdf          the learning curves
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from fa_jax.checks import BadOption, nearest
from fa_jax.records.conditions import Condition, conditions
from fa_jax.records.reader import KEYS, Run
from fa_jax.reports.contrasts import Contrast, contrasts, declared, planned, unlike
from fa_jax.reports.labels import labels
from fa_jax.reports.tables import (
    contrast_sheet,
    latex,
    markdown,
    score_sheet,
    terminal,
    write_contrasts,
    write_scores,
)

REFERENCE = "bp"
"""The rule that every other one is contrasted with unless told otherwise."""


class Comparison(NamedTuple):
    """What is compared, and how."""

    conditions: list[Condition]
    names: list[str]
    metric: str | None
    """None: the main one of each condition."""
    contrasts: list[Contrast]
    note: str
    """Why there are no contrasts, or not as many as there might be; empty: there is nothing to say."""


def compare(
    runs: Sequence[Run], *, metric: str | None = None, against: str | None = None, wanted: str | None = None
) -> Comparison:
    """Returns the comparison of runs.

    Args:
      runs: at least one.
      metric: a column of their metrics; None: the main one of each.
      against: the rule, or the name of the condition, that each other one is contrasted with; None: bp where it is
        among them.
      wanted: contrasts such as `dfa:bp,dfa:fa`, instead of those.

    Raises:
      BadOption: if a name leads nowhere.
    """
    found = conditions(runs)
    names = labels([one.run for one in found])
    columns = list(dict.fromkeys(c for one in found for c in one.run.metrics if c not in KEYS))
    if metric is not None and metric not in columns:
        raise BadOption(f"metric must be one of {', '.join(columns)}; got {metric!r}{nearest(metric, columns)}")
    rules = [one.run.choices["rule"] for one in found]
    note = ""
    if wanted is not None:
        pairs = declared(wanted, found, names, rules)
    elif against is None and REFERENCE not in rules:
        pairs = []
        if len(found) > 1:
            note = f"no contrasts: {REFERENCE} is not among them; against= names what they are contrasted with"
    else:
        pairs = planned(found, names, against or REFERENCE)
        others = len(found) - sum((against or REFERENCE) in one for one in zip(rules, names, strict=True))
        if len(pairs) < others:
            note = _without_contrast(found, names, [i for i, _ in pairs], against or REFERENCE)
    made = contrasts(found, [(i, j, metric or found[j].run.main_metric) for i, j in pairs])
    if dropped := [(i, j) for i, j in pairs if (i, j) not in [(one.condition, one.against) for one in made]]:
        said = ", ".join(f"{names[i]} - {names[j]}" for i, j in dropped)
        note = "; ".join(
            [*([note] if note else []), f"without a test, since one of them did not come to its end: {said}"]
        )
    return Comparison(found, names, metric, made, note)


SAID = 6
"""How many things of a kind a note names."""


def _without_contrast(found: Sequence[Condition], names: Sequence[str], paired: Sequence[int], against: str) -> str:
    """Says which conditions have no contrast, in what they differ from the reference, and how to get one."""
    rules = [one.run.choices["rule"] for one in found]
    references = [i for i, both in enumerate(zip(rules, names, strict=True)) if against in both]
    lines = []
    for i in (i for i in range(len(found)) if i not in (*paired, *references)):
        differing = min((unlike(found[i], found[j]) for j in references), key=len)
        why = f"differs also in {_some(differing, ', ')}" if differing else f"has several of {against} to go with"
        lines.append(f"{names[i]} {why}")
    words = f"contrasts='{names[i]}:{names[references[0]]}'"
    return f"without a contrast: {_some(lines, '; ')}. {words} asks for it all the same"


def _some(things: Sequence[str], between: str) -> str:
    """The first of them in a row, and how many there are more."""
    more = [f"and {len(things) - SAID} more"] if len(things) > SAID else []
    return between.join([*things[:SAID], *more])


def show(comparison: Comparison, console: Console) -> None:
    """Prints the tables."""
    console.print(terminal(score_sheet(comparison.conditions, comparison.names, comparison.metric), console.width))
    if comparison.contrasts:
        console.print(terminal(contrast_sheet(comparison.contrasts, comparison.names), console.width))
    if comparison.note:
        console.print(comparison.note, highlight=False, soft_wrap=True)
    for one in comparison.conditions:
        for run in (*one.used, *one.left_out):
            if run.status["status"] == "failed":
                reason = f"failed: {run.folder}: {run.status['reason']}"
                console.print(reason, highlight=False, soft_wrap=True, markup=False)


def write(comparison: Comparison, folder: Path) -> None:
    """Writes the tables and the figure into a folder, which is made; those of before are replaced."""
    from fa_jax.reports.figures import comparison_figure  # matplotlib takes a second to import

    found, names, metric = comparison.conditions, comparison.names, comparison.metric
    folder.mkdir(parents=True, exist_ok=True)
    write_scores(found, names, folder / "comparison.csv", metric)
    write_contrasts(comparison.contrasts, names, folder / "contrasts.csv")
    sheets = [score_sheet(found, names, metric)]
    sheets += [contrast_sheet(comparison.contrasts, names)] if comparison.contrasts else []
    (folder / "comparison.md").write_text("\n".join(map(markdown, sheets)))
    (folder / "comparison.tex").write_text("\n".join(map(latex, sheets)))
    comparison_figure([one.run for one in found], folder / "comparison", metric)
