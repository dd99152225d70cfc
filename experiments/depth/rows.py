"""How deep a rule learns: digits, dense networks of 2 to 16 hidden layers, beside controls whose hidden layers do not.

    python -m experiments.depth.rows                      all networks, all rules
    python -m experiments.depth.rows 30epochs/8x64        one network
    python -m experiments.depth.rows --status             how far the rows have come
    python -m experiments.depth.rows --table              prints the table

Each rule tries learning rates with two seeds on 200 held-out images, and up to four beyond the edge of these if it has
the best one; then the best one trains on all, with five seeds.
The runs are in outputs/depth.
"""

from experiments.controlled import CONTROLS, Study, markdown
from experiments.rules_by_architectures.case import RATES_OF

WIDTH, EPOCHS = 64, 30
DEPTHS = (2, 4, 8, 16)
"""Numbers of hidden layers."""
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
RATES_OF_READOUT = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""The rates that `shallow` tries, whose problem is convex."""
SCALE = "1.732"
"""The scale of uniform weights whose variance is one over the fan in: signals neither vanish nor explode."""
STUDY = Study(
    name="depth",
    networks={
        f"{depth}x{WIDTH}": ("task=digits", f"architecture.hidden=[{','.join([str(WIDTH)] * depth)}]")
        for depth in DEPTHS
    },
    recipe=(f"architecture.init_scale={SCALE}", "evaluations=3"),
    rules=(
        *CONTROLS,
        "bp",
        "fa",
        "dfa",
        "drtp",
        "ifa",
        "usf",
        "kolen_pollack",
        "weight_mirror",
        "direct_kolen_pollack",
        "target_propagation",
        "local_loss",
        "forward_forward",
        "node_perturbation",
        "sdfa",
    ),
    rates=lambda network, rule: RATES_OF_READOUT if rule == "shallow" else RATES_OF.get(rule, RATES),
    # Feedback from layer to layer is drawn like the weights.
    for_rule=lambda network, rule: (
        (f"feedback.scale={SCALE}",) if rule in ("fa", "kolen_pollack", "weight_mirror") else ()
    ),
    lengths={EPOCHS: 0.005},
    trial_epochs=lambda epochs: epochs,
    held_out=200,
)
rows, collect = STUDY.rows, STUDY.collect


def tables() -> str:
    """Returns the table as Markdown: the test error and the margin above each control by depth."""
    recorded = {(row["network"], row["rule"]): row for row in STUDY.recorded(EPOCHS)}
    lines = []
    for rule in STUDY.rules:
        of_rule = [recorded.get((network, rule)) for network in STUDY.networks]
        if any(of_rule):
            lines.append([rule, *map(_error, of_rule), *map(_margin, of_rule)])
    names = [f"{depth} layers" for depth in DEPTHS]
    columns = {"rule": "left", **dict.fromkeys(names, "right"), **{f"above, {name}": "right" for name in names}}
    return markdown(lines, columns)


def _error(row: dict[str, str] | None) -> str:
    """Returns the mean test error of a row, with its marks."""
    if row is None:
        return ""
    diverged = int(row["diverged"])
    marks = [f"{diverged} of {diverged + int(row['n'])} diverged"] if diverged else []
    marks += ["edge"] if row["at the edge of the grid"] == "True" else []
    return f"{row['test error']} ({', '.join(marks)})" if marks else row["test error"]


def _margin(row: dict[str, str] | None) -> str:
    """Returns how far a row is above `shallow`, with the interval; empty for controls and before it is measured."""
    if row is None or not row["above shallow"] or row["rule"] in CONTROLS:
        return ""
    return f"{row['above shallow']} ({row['above shallow, low']} to {row['above shallow, high']})"


if __name__ == "__main__":
    STUDY.main(__doc__, [f"{EPOCHS}epochs"], tables)
