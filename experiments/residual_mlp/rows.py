"""Which feedback rules are above frozen blocks: backprop, FA, DFA and controls in pre-norm residual networks on CIFAR.

    python -m experiments.residual_mlp.rows                                 CIFAR-10 for 30 epochs, all rules
    python -m experiments.residual_mlp.rows 30epochs/cifar10/fa             one of them
    python -m experiments.residual_mlp.rows 10epochs/cifar10                a shorter one, for two cores
    python -m experiments.residual_mlp.rows 100epochs/cifar10 30epochs      the length of 2026; all networks
    python -m experiments.residual_mlp.rows 10epochs/cifar10_2026           the local losses and the rate of 2026
    python -m experiments.residual_mlp.rows --status                        how far the rows have come
    python -m experiments.residual_mlp.rows --table                         prints the tables

Each rule tries five learning rates with two seeds for a third of the epochs, on all but 5000 training images, and up to
four beyond the edge of these if it has the best one; then the one with the lowest error on these held-out images trains
on all, with five seeds. `cifar10_2026` has the rate 1e-3 for all rules, and FA
and DFA of `local_losses`, whose signals have a fixed size for each example; `cifar10_2026_batch` has the same with a
fixed size for each batch. The runs are in outputs/residual_mlp.
"""

from collections.abc import Sequence

from experiments.controlled import CONTROLS, Study, markdown

RATES = {"frozen_blocks": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3), "shallow": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)}
"""The rates that the controls try, whose best ones are lower or higher than those of other rules."""
LOCAL_LOSSES = "experiments.residual_mlp.local_losses"
STATES = f"feedback._target_={LOCAL_LOSSES}.between_states"


def by_local_losses(suffix: str) -> dict[str, tuple[str, ...]]:
    """Returns the further arguments of rules by the recipe of 2026, given the suffix of their functions."""
    return {
        "fa": (f"rule._target_={LOCAL_LOSSES}.fa{suffix}", STATES),
        "dfa": (f"rule._target_={LOCAL_LOSSES}.dfa{suffix}",),
    }


RECIPES_OF_2026 = {"cifar10_2026": by_local_losses(""), "cifar10_2026_batch": by_local_losses("_by_batch")}
"""The networks that are trained by the recipe of 2026, and the further arguments of their rules."""


def rates(network: str, rule: str) -> Sequence[float]:
    """Returns the learning rates that a rule tries on a network."""
    return (1e-3,) if network in RECIPES_OF_2026 else RATES.get(rule, (1e-4, 3e-4, 1e-3, 3e-3, 1e-2))


STUDY = Study(
    name="residual_mlp",
    networks={
        "cifar10": ("task=cifar10",),
        "cifar10_without_norm": ("task=cifar10", "architecture.terminal_norm=false"),
        "cifar100": ("task=cifar100",),
        **dict.fromkeys(RECIPES_OF_2026, ("task=cifar10",)),
    },
    # That of 2026 but for its rates and local losses. The weight decay is the default one of AdamW, 0.01.
    recipe=(
        "architecture=residual_mlp",
        "optimizer=adamw",
        "optimizer/schedule=cosine",
        "batch_size=128",
        "task.preprocessing=standardised",
        "evaluations=10",
    ),
    rules=(*CONTROLS, "bp", "fa", "dfa"),
    rates=rates,
    for_rule=lambda network, rule: RECIPES_OF_2026.get(network, {}).get(rule, ()),
    lengths={10: 0.2, 30: 0.6, 100: 1.8},
    trial_epochs=lambda epochs: max(1, epochs // 3),
    held_out=5000,
)
rows, collect = STUDY.rows, STUDY.collect
COLUMNS = {
    "network": "left",
    "rule": "left",
    "n": "right",
    "learning rate": "right",
    "test error": "right",
    "above frozen_blocks": "right",
    "95 % interval": "left",
    "above shallow": "right",
    "angles of the signals, layer by layer": "left",
}


def tables() -> str:
    """Returns the recorded tables as Markdown, one for each number of epochs."""
    parts = {epochs: [_line(row) for row in STUDY.recorded(epochs)] for epochs in STUDY.lengths}
    return "\n\n".join(f"{epochs} epochs:\n\n{markdown(lines, COLUMNS)}" for epochs, lines in parts.items() if lines)


def _line(row: dict[str, str]) -> list[str]:
    low, high = (row[f"above frozen_blocks, {end}"] for end in ("low", "high"))
    texts = {**row, "95 % interval": f"{low} to {high}" if low else ""}
    texts["learning rate"] += " (edge)" if row["at the edge of the grid"] == "True" else ""
    return [texts[column] for column in COLUMNS]


if __name__ == "__main__":
    STUDY.main(__doc__, ["30epochs/cifar10"], tables)
