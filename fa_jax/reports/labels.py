"""Labels of the runs in tables and figures."""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fa_jax.records.reader import Run

NAMES = {
    "bp": "BP",
    "fa": "FA",
    "dfa": "DFA",
    "ifa": "IFA",
    "drtp": "DRTP",
    "pepita": "PEPITA",
    "sdfa": "sDFA",
    "usf": "uSF",
    "frsf": "frSF",
    "brsf": "brSF",
    "kolen_pollack": "Kolen-Pollack",
    "direct_kolen_pollack": "direct Kolen-Pollack",
    "weight_mirror": "weight mirror",
    "node_perturbation": "node perturbation",
    "associated_learning": "associated learning",
    "forward_forward": "Forward-Forward",
    "recurrent_forward_forward": "recurrent Forward-Forward",
    "mirrored_pepita": "mirrored PEPITA",
    "fixed_weight_target_propagation": "fixed-weight target propagation",
    "direct_target_propagation": "direct target propagation",
    "target_propagation": "target propagation",
    "counter_current": "counter-current learning",
    "forward_dfa": "forward DFA",
    "product_feedback_alignment": "product feedback alignment",
    "forward_gradient": "forward gradient",
    "local_forward_gradient": "local forward gradient",
    "local_loss": "local loss",
    "predictive_coding": "predictive coding",
    "scff": "SCFF",
    "equilibrium_propagation": "equilibrium propagation",
    "frozen_blocks": "frozen blocks",
}
"""The label of each rule, in the order in which rules are listed and take their colours."""
ABSENT = "-"
"""Stands for the value of an option that a run does not have, or that is null."""
NULL = "None"
GROUPS = ("architecture", "feedback", "loss", "optimizer")


class Described(NamedTuple):
    """A run among others: its rule, its task, and what distinguishes it from other runs of the rule on the task."""

    rule: str
    """The label of the rule."""
    task: str
    setting: tuple[tuple[str, str], ...]
    """Options and their values, as few as distinguish the runs; `ABSENT` where a run has no value."""


def rule_label(run: Run) -> str:
    """Returns the label of a run's rule: what `display.label` recorded, or else a name of `NAMES`."""
    display, rule = run.config.get("display"), run.choices["rule"]
    label = display.get("label") if isinstance(display, dict) else None
    return label if isinstance(label, str) and label.strip() else NAMES.get(rule, rule)


def describe(runs: Sequence[Run]) -> list[Described]:
    """Returns the description of each run among all of them.

    Options whose differences follow from an earlier one are omitted.
    """
    described = [_options(run) for run in runs]
    rules, tasks = ([run.choices[group] for run in runs] for group in ("rule", "task"))
    similar: dict[tuple[str, str], list[dict[str, str]]] = {}
    for rule, task, run_options in zip(rules, tasks, described, strict=True):
        similar.setdefault((rule, task), []).append(run_options)
    distinguishing = {pair: _distinguishing(group) for pair, group in similar.items()}
    return [
        Described(
            rule_label(run), task, tuple((key, run_options.get(key, ABSENT)) for key in distinguishing[rule, task])
        )
        for run, rule, task, run_options in zip(runs, rules, tasks, described, strict=True)
    ]


def labels(runs: Sequence[Run]) -> list[str]:
    """Returns a label for each run; no two are equal.

    If every run is an experiment, the name of the experiment without the beginning that all share. Else the rule, the
    task if there are several, and the options in which runs of any one rule on one task differ, as far as a run has
    them.
    """
    experiments = [run.choices.get("experiment") or "" for run in runs]
    if all(experiments) and len(set(experiments)) == len(runs) > 1:
        parts = [re.split("[/_]", name) for name in experiments]
        shared = len(list(itertools.takewhile(lambda column: len(set(column)) == 1, zip(*parts, strict=False))))
        return ["_".join(part[shared:]) or name for part, name in zip(parts, experiments, strict=True)]
    described = describe(runs)
    shown = dict.fromkeys(key for condition in described for key, _ in condition.setting)
    described = [
        condition._replace(setting=tuple((key, options.get(key, ABSENT)) for key in shown))
        for condition, options in zip(described, map(_options, runs), strict=True)
    ]
    several_tasks = len({condition.task for condition in described}) > 1
    texts = [_text(condition, several_tasks, short=True) for condition in described]
    counts = Counter(texts)
    exact = [
        _text(condition, several_tasks, short=counts[text] == 1)
        for condition, text in zip(described, texts, strict=True)
    ]
    seen: Counter[str] = Counter()
    for i, text in enumerate(exact):
        seen[text] += 1
        if seen[text] > 1:
            exact[i] = f"{text} ({seen[text]})"
    return exact


def matching(text: str, runs: Sequence[Run], names: Sequence[str]) -> list[int]:
    """Returns which runs a text names, in upper or lower case.

    Args:
      text: a label such as `FA learning_rate=0.1`, a rule such as `fa`, or what was typed, such as
        `rule=fa optimizer.learning_rate=0.1`; a label counts before a rule, and this before options.
      runs: among which to find them.
      names: their labels.
    """
    wanted = text.strip().lower()
    matches = [i for i, name in enumerate(names) if name == text] or [
        i for i, name in enumerate(names) if name.lower() == wanted
    ]
    return matches or [i for i, run in enumerate(runs) if _is_described(wanted, run)]


def setting_text(setting: Sequence[tuple[str, str]], *, short: bool = True) -> str:
    """Returns a setting as text, such as `learning_rate=0.1`, without options that are absent."""
    parts = []
    for key, value in setting:
        if value == ABSENT:
            continue
        *path, name = key.split(".")
        shown = short_value(value) if short else value.replace(" ", "")
        if name == "_target_" and path:  # a function is shown by its name, such as `schedule=cosine`
            name, shown = path[-1], value.rpartition(".")[2]
        parts.append(value if key in GROUPS else f"{name}={shown}")
    return " ".join(parts)


def short_value(value: str) -> str:
    """Returns a value as text, a number with four digits."""
    try:
        return f"{float(value):.4g}" if "." in value else value
    except ValueError:
        return value.replace(" ", "")


def _options(run: Run) -> dict[str, str]:
    """Returns the choices and the options of a run that are not null, by name."""
    described = {group: str(run.choices.get(group)) for group in GROUPS} | run.options
    return {key: value for key, value in described.items() if value != NULL}


def _is_described(text: str, run: Run) -> bool:
    """Returns whether a text in lower case is the rule of a run, options of it, or both."""
    rules = [
        name for name in (run.choices["rule"].lower(), rule_label(run).lower()) if f"{text} ".startswith(f"{name} ")
    ]
    words = text[max(map(len, rules), default=0) :].split()
    described = {**run.choices, **run.options}
    return bool(rules or words) and all(_has_option(word, described) for word in words)


def _has_option(word: str, described: Mapping[str, str | None]) -> bool:
    """Returns whether options have the value that `name=value` says, where the name may lack its first parts."""
    name, _, value = word.partition("=")
    values = [str(recorded) for key, recorded in described.items() if f".{key.lower()}".endswith(f".{name}")]
    return any(
        value in (recorded.lower().replace(" ", ""), short_value(recorded).lower()) or _is_equal(value, recorded)
        for recorded in values
    )


def _is_equal(value: str, recorded: str) -> bool:
    try:
        return float(value) == float(recorded)
    except ValueError:
        return False


def _text(condition: Described, several_tasks: bool, *, short: bool) -> str:
    parts = [condition.rule, *([condition.task] if several_tasks else []), setting_text(condition.setting, short=short)]
    return " ".join(filter(None, parts))


def _distinguishing(described: Sequence[dict[str, str]]) -> list[str]:
    """Returns the fewest options, in order, that distinguish all runs that any options distinguish.

    Config groups come first: their choice says more than the values that come with it.
    """
    chosen: list[str] = []
    values: list[tuple] = [()] * len(described)
    for key in dict.fromkeys(key for run_options in described for key in run_options):
        if len({run_options.get(key) for run_options in described}) == 1:
            continue
        finer = [(*value, run_options.get(key)) for value, run_options in zip(values, described, strict=True)]
        if len(set(finer)) > len(set(values)):
            chosen, values = [*chosen, key], finer
    return chosen
