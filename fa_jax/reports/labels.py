"""Labels and colours of the runs in tables and figures."""

import itertools
import re
from collections.abc import Sequence

from fa_jax.records.conditions import options
from fa_jax.records.reader import Run

NAMES = {
    **{name: name.upper() for name in ("bp", "fa", "dfa", "ifa", "drtp", "pepita")},
    **{"sdfa": "sDFA", "usf": "uSF", "frsf": "frSF", "brsf": "brSF"},
    **{"kolen_pollack": "Kolen-Pollack", "direct_kolen_pollack": "direct Kolen-Pollack"},
    **{"weight_mirror": "weight mirror", "node_perturbation": "node perturbation"},
    **{"associated_learning": "associated learning", "forward_forward": "Forward-Forward"},
    **{"recurrent_forward_forward": "recurrent Forward-Forward", "mirrored_pepita": "mirrored PEPITA"},
    "fixed_weight_target_propagation": "fixed-weight target propagation",
    "direct_target_propagation": "direct target propagation",
    **{"target_propagation": "target propagation", "counter_current": "counter-current learning"},
    **{"forward_dfa": "forward DFA", "product_feedback_alignment": "product feedback alignment"},
    **{"forward_gradient": "forward gradient", "local_forward_gradient": "local forward gradient"},
    **{"local_loss": "local loss", "predictive_coding": "predictive coding", "scff": "SCFF"},
    "equilibrium_propagation": "equilibrium propagation",
}
GROUPS = ("architecture", "feedback", "loss", "optimizer")

PAPER = {"bp": "black", "fa": "#00A651", "shallow": "#9A9A9A", "node_perturbation": "#4D4D4D"}
"""The colours of Lillicrap et al., 2014."""
PAPER_SECOND = {"bp": "magenta", "fa": "blue"}
"""Their colours for the network with one more layer; here for a rule's second run in a figure."""
OTHERS = ("#E69F00", "#56B4E9", "#D55E00", "#CC79A7", "#0072B2", "#F0E442")
OTHERS += ("#332288", "#44AA99", "#999933", "#CC6677", "#882255", "#AA4499", "#88CCEE", "#DDCC77", "#117733")
"""The colour-blind-safe palette of Okabe and Ito, without its green, which is close to the paper's; then Tol's muted
palette."""


def labels(runs: Sequence[Run]) -> list[str]:
    """Returns a label for each run.

    If every run is an experiment, the name of the experiment without the beginning that all share. Else the rule, the
    task if there are several, and the options in which runs of one rule on one task differ. Options whose differences
    follow from an earlier one are omitted.
    """
    experiments = [run.choices.get("experiment") or "" for run in runs]
    if all(experiments) and len(set(experiments)) == len(runs) > 1:
        parts = [re.split("[/_]", name) for name in experiments]
        shared = len(list(itertools.takewhile(lambda column: len(set(column)) == 1, zip(*parts, strict=False))))
        return ["_".join(part[shared:]) or name for part, name in zip(parts, experiments, strict=True)]
    described = [{group: str(run.choices.get(group)) for group in GROUPS} | options(run.config) for run in runs]
    rules, tasks = ([run.choices[group] for run in runs] for group in ("rule", "task"))
    similar: dict[tuple[str, str], list[dict[str, str]]] = {}
    for rule, task, run_options in zip(rules, tasks, described, strict=True):
        similar.setdefault((rule, task), []).append(run_options)
    distinguishing = {pair: _distinguishing(group) for pair, group in similar.items()}
    texts = []
    for rule, task, run_options in zip(rules, tasks, described, strict=True):
        parts = [task] if len(set(tasks)) > 1 else []
        for key in distinguishing[rule, task]:
            value = run_options.get(key, "-")
            parts.append(value if key in GROUPS else _described(key, value))
        texts.append(" ".join([NAMES.get(rule, rule), *parts]))
    return texts


def _described(key: str, value: str) -> str:
    """Returns an option with its value, such as `scale=0.5`; a function by its name, such as `schedule=cosine`."""
    *path, name = key.split(".")
    if name == "_target_" and path:
        return f"{path[-1]}={value.rpartition('.')[2]}"
    return f"{name}={_short(value)}"


def _short(value: str) -> str:
    """Returns a value as text, a number with four digits."""
    try:
        return f"{float(value):.4g}" if "." in value else value
    except ValueError:
        return value.replace(" ", "")


def _distinguishing(described: Sequence[dict[str, str]]) -> list[str]:
    """Returns the fewest options, in order, that distinguish all runs that any options distinguish.

    Config groups come first: their choice says more than the values that come with it.
    """
    chosen: list[str] = []
    values: list[tuple] = [()] * len(described)
    for key in dict.fromkeys(key for run_options in described for key in run_options):
        finer = [(*value, run_options.get(key)) for value, run_options in zip(values, described, strict=True)]
        if len(set(finer)) > len(set(values)):
            chosen, values = [*chosen, key], finer
    return chosen


def colours(runs: Sequence[Run]) -> list[str]:
    """Returns a colour for each run: the paper's for its rules, colour-blind-safe ones for others."""
    spare = iter(OTHERS * (1 + len(runs) // len(OTHERS)))
    counts: dict[str, int] = {}
    chosen = []
    for run in runs:
        rule = run.choices["rule"]
        counts[rule] = counts.get(rule, 0) + 1
        paper = {1: PAPER, 2: PAPER_SECOND}.get(counts[rule], {})
        chosen.append(paper[rule] if rule in paper else next(spare))
    return chosen
