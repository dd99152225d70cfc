"""The table of contrasts: whether two conditions differ, in pairs over seeds."""

import math
from collections.abc import Mapping, Sequence

from fa_jax.checks import choose
from fa_jax.records.columns import Column
from fa_jax.reports.contrasts import Contrast
from fa_jax.reports.decimals import of_metrics
from fa_jax.reports.numbers import difference_texts
from fa_jax.reports.paired import MAX_SEEDS
from fa_jax.reports.tables import Table

COLUMNS = {
    **{"difference": "difference", "interval": "95 % (t)", "d": "d", "p_t": "p (t)", "holm_t": "p (Holm)"},
    **{"p_wilcoxon": "p (W)", "holm_wilcoxon": "p (W, Holm)", "n": "n", "needed": "needed"},
}
"""The columns of contrasts that can be chosen, with their headings."""
PAPER = ("difference", "interval", "d", "holm_t", "n")
"""Those of them that a table for a page or a paper has by default."""


def contrast_table(
    contrasts: Sequence[Contrast],
    names: Sequence[str],
    columns: Mapping[str, Column],
    chosen: Sequence[str] | None = None,
    decimals: Mapping[str, int] | None = None,
) -> Table:
    """Returns one row per contrast.

    Args:
      contrasts: at least one.
      names: the labels of the conditions.
      columns: what describes the metrics of contrasts.
      chosen: of `COLUMNS`, in any order; None: all.
      decimals: of units, as of `unit_decimals`.

    Raises:
      BadOption: if there is no such column.
    """
    shown = list(dict.fromkeys(COLUMNS if chosen is None else chosen))
    for name in shown:
        choose("a column of contrasts", name, COLUMNS)
    ratio = {contrast.metric: columns[contrast.metric].logarithmic for contrast in contrasts}
    kinds = " or ".join(dict.fromkeys("ratio" if ratio[contrast.metric] else "difference" for contrast in contrasts))
    headings = {**COLUMNS, "difference": kinds}
    headings |= {f"holm_{test}": "Holm" for test in ("t", "wilcoxon") if f"p_{test}" in shown}
    differences = [(contrast.metric, contrast.difference, contrast.low, contrast.high) for contrast in contrasts]
    texts = difference_texts(differences, ratio, of_metrics(decimals, columns))
    rows = []
    for contrast, (difference, interval) in zip(contrasts, texts, strict=True):
        untested = math.isnan(contrast.effect)
        needed = f"> {MAX_SEEDS:,}" if contrast.seeds_needed is None else str(contrast.seeds_needed)
        cells = {"difference": difference, "n": str(contrast.n)}
        cells |= {name: _p(getattr(contrast, name)) for name in ("p_t", "holm_t", "p_wilcoxon", "holm_wilcoxon")}
        cells |= {"interval": interval, "d": f"{contrast.effect:.2f}", "needed": needed}
        cells |= dict.fromkeys(("interval", "d", "needed"), "-") if untested else {}
        sign = "/" if ratio[contrast.metric] else "-"
        rows.append([f"{names[contrast.condition]} {sign} {names[contrast.against]}", *(cells[name] for name in shown)])
    metrics = ", ".join(dict.fromkeys(columns[contrast.metric].axis for contrast in contrasts))
    caption = _contrast_caption(contrasts, f"{metrics}, mean {kinds}", shown)
    return Table(["contrast", *(headings[name] for name in shown)], rows, caption)


def _contrast_caption(contrasts: Sequence[Contrast], what: str, shown: Sequence[str]) -> str:
    """Explains the columns of contrasts that are shown, and says which are not."""
    kinds = {"t": "paired t", "wilcoxon": "Wilcoxon (W)"}
    tests = " and ".join(name for test, name in kinds.items() if {f"p_{test}", f"holm_{test}"} & {*shown})
    corrected = any(name.startswith("holm") for name in shown)
    many = f"{len(contrasts)} contrast{'s' if len(contrasts) != 1 else ''}"
    parts = [f"{what} in pairs over the n seeds that both have"]
    parts += ["d: Cohen's of the pairs"] * ("d" in shown)
    parts += [f"two-sided p by {tests}" + (f", Holm's for {many}" if corrected else "")] * bool(tests)
    lines = ["; ".join(parts)]
    meaning = "all pairs differ by the same amount, as far as float32 resolves it"
    needed = "needed: seeds for a power of 80 % at the 5 % level with this d; " if "needed" in shown else ""
    untested = any(math.isnan(contrast.effect) for contrast in contrasts)
    lines += [f"{needed}-: {meaning}"] if untested else [needed.removesuffix("; ")] * bool(needed)
    fewest = min((contrast.n for contrast in contrasts if not math.isnan(contrast.p_wilcoxon)), default=6)
    if fewest < 6 and {"p_wilcoxon", "holm_wilcoxon"} & {*shown}:
        lines.append(f"with {fewest} pairs, Wilcoxon's p cannot fall below {2.0 ** (1 - fewest):.2g}")
    left_out = [heading for name, heading in COLUMNS.items() if name not in shown]
    lines += [f"not shown: {', '.join(left_out)}"] * bool(left_out)
    return "\n".join(lines)


def _p(value: float) -> str:
    return "-" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"
