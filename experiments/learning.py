"""The page `experiments/learning.md`: which rules learn in their hidden layers, how deep, and at which cost.

    python -m experiments.learning

It reads the recorded tables of rules_by_architectures, depth, residual_mlp and tables, and trains nothing. Every
statement of the page follows from them, and a test holds the page to what this script writes.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.controlled import CONTROLS, markdown
from experiments.depth import rows as depth
from experiments.residual_mlp import rows as residual_mlp
from experiments.rules.recorded import Recorded, cost
from experiments.rules_by_architectures.compare import Margin, above
from experiments.tables import results as tables

PAGE = Path(__file__).parent / "learning.md"
TASKS = {"digits": "digits", "mnist": "MNIST"}
FROZEN, SHALLOW = CONTROLS


class Measured:
    """The margins of every rule above a control, by network."""

    def __init__(self, recorded: Recorded, control: str):
        tuned = [row for row in recorded.measured if row["values"] == "tuned"]
        of_control = {(row["task"], row["architecture"]): row for row in tuned if row["rule"] == control}
        self.networks = sorted(of_control)
        self.margins: dict[str, dict[tuple[str, str], Margin | None]] = {}
        for row in tuned:
            network = row["task"], row["architecture"]
            if network in of_control and row["rule"] not in CONTROLS:
                self.margins.setdefault(row["rule"], {})[network] = above(row, of_control[network])

    def above(self, rule: str) -> list[tuple[str, str]]:
        """Returns the networks on which the whole interval of a rule is above the control."""
        return [network for network, margin in self.margins[rule].items() if margin is not None and margin.low > 0]


def page(recorded: Recorded) -> str:
    """Returns the text of the page."""
    shallow, frozen = Measured(recorded, SHALLOW), Measured(recorded, FROZEN)
    names = [name for name in recorded.needs if name in shallow.margins]
    names.sort(key=lambda name: -len(shallow.above(name)))
    everywhere = [name for name in names if len(shallow.above(name)) == len(shallow.margins[name])]
    nowhere = [name for name in names if not shallow.above(name)]
    partly = [name for name in names if name not in (*everywhere, *nowhere)]
    beside_frozen = [name for name in names if name in frozen.margins]
    above_frozen = [name for name in beside_frozen if frozen.above(name)]
    parts = [
        "# Which rules learn in their hidden layers",
        SOURCES,
        INTRODUCTION,
        "## In short",
        _bullets(
            [
                f"**Above random hidden layers wherever they were trained**, which for many is on two networks alone "
                f"({len(everywhere)} of {len(names)} rules): "
                f"{_names(everywhere, shallow)}.",
                f"**Above them on some networks, not on all**: {_names(partly, shallow)}.",
                f"**Nowhere above them**: {_names(nowhere, shallow)}.",
                f"**Above frozen blocks**, where the first layer alone learns, by backprop, on at least one network: "
                f"{len(above_frozen)} of {len(beside_frozen)} rules: {_names(above_frozen, frozen)}. On none: "
                f"{_names([name for name in beside_frozen if name not in above_frozen], frozen)}.",
                *_of_depth(),
                *_of_residual(),
                f"**Published comparison tables**: {tables.summary(tables.recorded(tables.HERE))}",
            ]
        ),
        "In brackets: the networks on which this holds, of those with the control on which the rule was trained.",
        "## What single papers do not show",
        _bullets(_of_union(recorded, shallow, frozen)),
        "## Above random hidden layers, by network",
        READING,
        markdown(_lines(recorded, names, shallow), _columns(shallow)),
        "## Above frozen blocks",
        "The same, beside the control whose first layer learns.",
        markdown(_lines(recorded, beside_frozen, frozen), _columns(frozen)),
        "## By depth",
        "Digits, dense networks of 64 units in each of so many hidden layers: test errors in %, and the margins above "
        "`shallow` ([depth](depth)).",
        depth.tables() if depth.STUDY.recorded(depth.EPOCHS) else "Not measured yet.",
        "## In pre-norm residual networks",
        "CIFAR-10, with AdamW. In the rows `cifar10_2026`, FA and DFA descend local losses on signals of a fixed size\n"
        "for each example (`_batch`: for each batch), and all rules have one rate, by the recipe of Hao et al., 2026\n"
        "([residual_mlp](residual_mlp)).",
        residual_mlp.tables() or "Not measured yet.",
        "## Published rows",
        "A published error that a network with random hidden layers reaches is no evidence that hidden layers learn.\n"
        "The column *reached by* in [tables](tables) says which controls reach it.",
    ]
    return "\n\n".join(parts) + "\n"


SOURCES = """Written by `python -m experiments.learning` from the tables of
[rules_by_architectures](rules_by_architectures), [depth](depth), [residual_mlp](residual_mlp) and [tables](tables),
which say how each number was measured."""
INTRODUCTION = """A low test error does not show that hidden layers learn: with two random ones, a readout alone
classifies 95 % of digits rightly. So every rule stands beside one or two controls on the same architecture, with the
same number of seeds and some seven trials each, for some a few more where the best rate was at an edge. The controls
descend the plain gradient; associated learning, local losses, predictive coding and SCFF have Adam, and both forms of
Forward-Forward a moving average. Forward-Forward, its variants and equilibrium propagation have other activation
functions than the controls, fixed-weight target propagation normalises its layers over the batch, and rules with heads
or codes of their own have more params. MNIST is trained for two epochs, which tells how fast a rule learns. In
[`shallow`](rules/shallow.md) the hidden layers keep their random start, and the readout learns. In
[`frozen_blocks`](rules/frozen_blocks.md) the first layer learns, too, by backprop through the random ones above it:
a rule may reach as much by its first layer alone. *Above* is the error of the control less that of the rule. Here a
rule *learns* on a network if the 95 % interval of this difference lies above 0. The intervals are of single
comparisons: of a hundred true differences of zero, two or three would lie above 0."""
READING = """Points of test error, tuned values, five seeds each; in round brackets if the 95 % interval (Welch's t)
contains 0, bold if it lies below 0; empty: not measured, or not defined on that network, such as frozen blocks where
there is one hidden layer. *Cost* counts operations per step, those of `bp` on the dense network of MNIST being 1."""


def _names(names: Iterable[str], measured: Measured) -> str:
    """Returns rules as a list in words, each with the number of networks on which it is above the control."""
    texts = [f"`{name}` ({len(measured.above(name))} of {len(measured.margins[name])})" for name in names]
    return ", ".join(texts) or "none"


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"* {sentence}" for sentence in sentences)


def _columns(measured: Measured) -> dict[str, str]:
    names = [f"{TASKS[task]}, {architecture}" for task, architecture in measured.networks]
    return {"rule": "left", **dict.fromkeys(names, "right"), "cost": "right"}


def _lines(recorded: Recorded, names: Sequence[str], measured: Measured) -> list[list[str]]:
    """Returns the lines of the table of margins."""
    bp = recorded.row("bp", "mnist", "mlp") or {}
    lines = []
    for name in names:
        row = recorded.row(name, "mnist", "mlp")
        cells = [_cell(measured.margins[name].get(network)) for network in measured.networks]
        lines.append([f"[`{name}`](rules/{name}.md)", *cells, "" if row is None else cost(row, bp)])
    return lines


def _cell(margin: Margin | None) -> str:
    if margin is None:
        return ""
    text = f"{margin.mean:+.1f}"
    return text if margin.low > 0 else f"**{text}**" if margin.high < 0 else f"({text})"


def _of_depth() -> list[str]:
    """Returns the sentence on the deepest networks, if they are measured."""
    deepest = max(depth.DEPTHS)
    rows = [
        row
        for row in depth.STUDY.recorded(depth.EPOCHS)
        if row["network"] == f"{deepest}x{depth.WIDTH}" and row["rule"] not in CONTROLS and row["above shallow, low"]
    ]
    if not rows:
        return []
    learn = [f"`{row['rule']}`" for row in rows if float(row["above shallow, low"]) > 0]
    rest = [f"`{row['rule']}`" for row in rows if float(row["above shallow, low"]) <= 0]
    text = f"**With {deepest} hidden layers** on digits, above random ones: {', '.join(learn) or 'none'}; not above: "
    return [f"{text}{', '.join(rest) or 'none'}."]


def _of_union(recorded: Recorded, shallow: Measured, frozen: Measured) -> list[str]:
    """Returns what follows from all rules and networks together."""
    learning = [name for name in recorded.needs if name in shallow.margins and shallow.above(name)]
    first_alone = [name for name in learning if name in frozen.margins and not frozen.above(name)]
    widest = max(
        (name for name in learning if len(shallow.margins[name]) > 1), key=lambda name: _range(shallow, name)[1]
    )
    low, high = _range(shallow, widest)
    return [
        f"Above a random network is not above one whose first layer learns: of {len(learning)} rules that are above "
        f"random hidden layers somewhere, {len(first_alone)} are above frozen blocks nowhere. A paper whose only "
        "control is a readout of random layers does not show that deeper layers learn.",
        f"How far a rule is above its control depends on the network: for `{widest}` it is between {low:.1f} and "
        f"{high:.1f} points. A margin on one network does not carry over to another.",
        f"Backprop and the controls aside, the lowest mean error is that of {_best(recorded, shallow)}.",
    ]


def _range(measured: Measured, rule: str) -> tuple[float, float]:
    """Returns the smallest and the largest margin of a rule over networks."""
    margins = [margin.mean for margin in measured.margins[rule].values() if margin is not None]
    return min(margins), max(margins)


def _best(recorded: Recorded, measured: Measured) -> str:
    """Returns the rule with the lowest tuned error on each network, backprop and controls aside."""
    networks: dict[str, list[str]] = {}
    for task, architecture in measured.networks:
        rows = [
            row
            for row in recorded.measured
            if (row["task"], row["architecture"], row["values"]) == (task, architecture, "tuned")
            and row["rule"] not in ("bp", *CONTROLS)
            and row["test error"]
        ]
        best = min(rows, key=lambda row: float(row["test error"]))["rule"]
        networks.setdefault(best, []).append(f"{TASKS[task]}, {architecture}")
    return "; ".join(f"`{rule}` on {', '.join(f'({name})' for name in names)}" for rule, names in networks.items())


def _of_residual() -> list[str]:
    """Returns the sentences on residual networks, those that are measured."""
    sentences = []
    for epochs in residual_mlp.STUDY.lengths:
        for row in residual_mlp.STUDY.recorded(epochs):
            margin, low, high = (row[f"above {FROZEN}{part}"] for part in ("", ", low", ", high"))
            if row["rule"] not in CONTROLS and low:
                where = "above" if float(margin) >= 0 else "below"
                is_level = float(low) <= 0 <= float(high)
                compared = "level with" if is_level else f"{abs(float(margin)):.2f} points {where}"
                by_2026 = row["rule"] in residual_mlp.RECIPES_OF_2026.get(row["network"], {})
                rule = f"the local-loss form of `{row['rule']}`" if by_2026 else f"`{row['rule']}`"
                sentences.append(
                    f"In a residual network ({row['network']}, {epochs} epochs), {rule} is {compared} frozen blocks "
                    f"(margin {low} to {high})."
                )
    return sentences


def main() -> None:
    PAGE.write_text(page(Recorded()))


if __name__ == "__main__":
    main()
