"""What the runs of a comparison are called, by their rule and what else their configs differ in, and their colours."""

from collections.abc import Sequence

from fa_jax.records.conditions import options
from fa_jax.records.reader import Run

NAMES = {
    **{name: name.upper() for name in ("bp", "fa", "dfa", "ifa", "drtp")},
    **{"sdfa": "sDFA", "usf": "uSF", "frsf": "frSF", "brsf": "brSF"},
    **{"kolen_pollack": "Kolen-Pollack", "direct_kolen_pollack": "direct Kolen-Pollack"},
    **{"weight_mirror": "weight mirror", "node_perturbation": "node perturbation"},
    **{"associated_learning": "associated learning", "forward_forward": "forward-forward"},
    "recurrent_forward_forward": "recurrent forward-forward",
}
GROUPS = ("architecture", "loss", "optimizer")

PAPER = {"bp": "black", "fa": "#00A651", "shallow": "#9A9A9A", "node_perturbation": "#4D4D4D"}
"""The colours of Lillicrap et al., 2014."""
PAPER_SECOND = {"bp": "magenta", "fa": "blue"}
"""Theirs for the network with one layer more, here for a rule's second run in a figure."""
OTHERS = ("#E69F00", "#56B4E9", "#D55E00", "#CC79A7", "#0072B2", "#F0E442")
OTHERS += ("#332288", "#44AA99", "#999933", "#CC6677", "#882255", "#AA4499", "#88CCEE", "#DDCC77", "#117733")
"""Okabe and Ito's palette, which the colour-blind can tell apart, without its green, which the paper's is close to;
then Tol's muted one, for more."""


def labels(runs: Sequence[Run]) -> list[str]:
    """Returns a label for each run.

    Where every run is an experiment of its own, its name without what all begin with. Else the rule, the task where
    there are several, then the options in which runs of one rule on one task differ: options that each rule or task has
    values of its own for tell no more than its name does, nor do those that differ only where an earlier one does.
    """
    experiments = [run.choices.get("experiment") or "" for run in runs]
    if all(experiments) and len(set(experiments)) == len(runs) > 1:
        words = [name.split("_") for name in experiments]
        shared = sum(len(set(column)) == 1 for column in zip(*words, strict=False))
        return ["_".join(name[shared:]) or "_".join(name) for name in words]
    described = [{group: run.choices[group] for group in GROUPS} | options(run.config) for run in runs]
    rules, tasks = ([run.choices[group] for run in runs] for group in ("rule", "task"))
    kin: dict[tuple[str, str], list[dict[str, str]]] = {}
    for rule, task, own in zip(rules, tasks, described, strict=True):
        kin.setdefault((rule, task), []).append(own)
    telling = {names: _telling(group) for names, group in kin.items()}
    texts = []
    for rule, task, own in zip(rules, tasks, described, strict=True):
        parts = [task] if len(set(tasks)) > 1 else []
        for key in telling[rule, task]:
            value = own.get(key, "-")
            parts.append(value if key in GROUPS else f"{key.rpartition('.')[2]}={_short(value)}")
        texts.append(" ".join([NAMES.get(rule, rule), *parts]))
    return texts


def _short(value: str) -> str:
    """A value as text, a number with four digits."""
    try:
        return f"{float(value):.4g}" if "." in value else value
    except ValueError:
        return value.replace(" ", "")


def _telling(described: Sequence[dict[str, str]]) -> list[str]:
    """The fewest options, in order, that tell apart what all together do.

    Where a whole group was exchanged, its name comes first and says more than the values that came with it.
    """
    chosen: list[str] = []
    parts = [()] * len(described)
    for key in dict.fromkeys(key for own in described for key in own):
        finer = [(*part, own.get(key)) for part, own in zip(parts, described, strict=True)]
        if len(set(finer)) > len(set(parts)):
            chosen, parts = [*chosen, key], finer
    return chosen


def colours(runs: Sequence[Run]) -> list[str]:
    """Returns a colour for each run: the paper's where it has one, others from a palette safe for the colour-blind."""
    spare = iter(OTHERS * (1 + len(runs) // len(OTHERS)))
    taken: dict[str, int] = {}
    chosen = []
    for run in runs:
        rule = run.choices["rule"]
        taken[rule] = taken.get(rule, 0) + 1
        paper = {1: PAPER, 2: PAPER_SECOND}.get(taken[rule], {})
        chosen.append(paper[rule] if rule in paper else next(spare))
    return chosen
