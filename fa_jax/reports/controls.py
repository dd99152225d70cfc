"""How far rules are above their controls: networks like theirs whose hidden layers do not learn.

    margin = error of the control - error of the rule, in pairs over the seeds that both have

A control is a run of one of `CONTROLS`, or a run of the rule itself with `frozen` params or with a second network that
does not learn. Both have the same network, readout and epochs; where they differ in such an option, they are not
compared, and a note says in which. In how many settings each was trained is counted, and said where it is not equal.
"""

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fa_jax.records.columns import Column
from fa_jax.records.conditions import Condition
from fa_jax.reports.contrasts import planned, without_rule
from fa_jax.reports.decimals import of_metrics
from fa_jax.reports.notes import first
from fa_jax.reports.numbers import difference_texts
from fa_jax.reports.paired import paired
from fa_jax.reports.tables import Table

CONTROLS = ("frozen_blocks", "shallow")
"""The rules whose hidden layers do not learn, the stronger one first."""
FIRST_LAYER_HIDDEN = ("mlp", "recurrent")
"""Architectures whose control is `shallow`: their first layer is a hidden layer itself."""
BUILT_IN, MODULE = "fa_jax.networks.", "fa_jax.networks.module.module"
"""The package of the networks whose first layer is known, and its factory for modules of users, of which it is not."""
FREEZING = {"frozen": None, "rule.learned": "False"}
"""The options that make a run of a rule a control of that rule, and the value that does; None: any."""
OWN_READOUTS = ("forward_forward", "local_forward_gradient", "local_loss", "recurrent_forward_forward", "scff")
"""Rules whose stages have readouts of their own, which still learn if the stages are frozen."""
USUAL = {"optimizer": "sgd", "architecture.activation": "tanh"}
"""What runs have unless their rule or their command says otherwise; naming it in a command changes nothing."""
RATES = ("optimizer.learning_rate", "feedback_optimizer")
"""What a frozen version of a rule may have of its own."""
TUNED = (*RATES, "feedback.", "rule.")
"""What a rule may have of its own without an advantage over its control."""
OF_THE_RULE = ("rule=", "rule.", "feedback", "frozen=", "display", "+optimizer@feedback_optimizer")
OF_THE_RULE += ("hydra.", "hydra/", "logger", "trust=")
"""The beginnings of the arguments of a command that are not those of its control."""
NAMES_CODE = re.compile(r"^[-+~]|_target_|\bmodule=|\$\{|^[^=]*@|^[\w/]+=.*\.\.")
"""What an argument has that may call a function or read configs from elsewhere, if it is typed: a record may say it."""
PLAIN = re.compile(r"[\w=.,:/@%\[\]-]+", re.ASCII)
"""An argument in which a shell takes nothing for its own; some take brackets for a pattern, if there is such a file."""
COMMANDS, RUNS = 2, 3
"""The most commands that train controls, and the most runs of each, that notes have."""


class Margin(NamedTuple):
    """How far a condition is above a control."""

    condition: int
    control: int
    """Indices of the two conditions."""
    metric: str
    n: int
    """The number of pairs: seeds that both have and that did not diverge."""
    margin: float
    """How much better the condition is; above 0: better. For a logarithmic metric, a ratio, of which 1 is equal."""
    low: float
    high: float
    """Its 95 % interval by Student's t."""
    unequal: tuple[str, ...]
    """The options in which the two differ besides the rule and the learning rate, and seeds, with both values."""


def margins(conditions: Sequence[Condition], names: Sequence[str], metric: str | None) -> list[Margin]:
    """Returns the margins of all finished conditions that have a control, by condition.

    Args:
      conditions: to be compared.
      names: their labels.
      metric: a column; None: the main metric of each.
    """
    computed, tried = [], _settings(conditions)
    for i, j in sorted(_pairs(conditions, names)):
        judged = metric or conditions[i].run.main_metric
        runs = [conditions[k].run for k in (i, j)]
        if not all(run.is_finished and judged in run.metrics for run in runs):
            continue
        better = runs[0].columns[judged].better
        if better != "neither":
            left, right = (j, i) if better == "lower" else (i, j)
            _, summary, _ = paired(conditions, left, right, judged)
            scale = math.exp if runs[0].columns[judged].logarithmic else float
            values = map(scale, (summary.mean, summary.low, summary.high))
            unequal = _unequal(conditions[i], conditions[j])
            if tried[i] != tried[j]:
                unequal += (f"settings tried ({tried[i]} and {tried[j]})",)
            computed.append(Margin(i, j, judged, summary.n, *values, unequal=unequal))
    return computed


def margin_table(
    computed: Sequence[Margin],
    names: Sequence[str],
    columns: Mapping[str, Column],
    decimals: Mapping[str, int] | None = None,
) -> Table:
    """Returns one row per margin; `columns` describe their metrics, and `decimals` are of units."""
    is_ratio = {margin.metric: columns[margin.metric].logarithmic for margin in computed}
    differences = [(margin.metric, margin.margin, margin.low, margin.high) for margin in computed]
    shown = difference_texts(differences, is_ratio, of_metrics(decimals, columns))
    rows = [
        [names[margin.condition], names[margin.control], *texts, str(margin.n)]
        for margin, texts in zip(computed, shown, strict=True)
    ]
    judged = ", ".join(dict.fromkeys(columns[margin.metric].axis for margin in computed))
    caption = (
        f"{judged}: how much better than the control, in pairs over the n seeds that both have; where it is not above "
        "0, the layers that learn in the run and not in the control add nothing"
    )
    unequal = [
        f"{names[margin.condition]} and {names[margin.control]} in {first(margin.unequal, ', ')}"
        for margin in computed
        if margin.unequal
    ]
    if unequal:
        caption += f"\ndiffering in more than the rule: {first(unequal, '; ')}"
    return Table(["run", "control", "above it", "95 % (t)", "n"], rows, caption)


def control_notes(conditions: Sequence[Condition], names: Sequence[str], computed: Sequence[Margin]) -> list[str]:
    """Returns which rules have no control to compare with: in what those that are there differ, or how to train one."""
    controls = [j for j, condition in enumerate(conditions) if _is_control(condition)]
    described = [frozenset(without_rule(condition).items()) for condition in conditions]
    without = set(range(len(conditions))) - set(controls) - {margin.condition for margin in computed}
    differing, of_command = [], {}
    for i in sorted(without):
        condition = conditions[i]
        if condition.run.choices["rule"] == "bp" or not condition.run.is_finished:
            continue
        options = [described[i] ^ described[j] for j in controls if _alike(condition, conditions[j])]
        if options:
            closest = sorted({key for key, _ in min(options, key=len)})
            reason = f"in {first(closest, ', ')}" if closest else "from several controls in settings of the rule alone"
            differing.append(f"{names[i]} differs {reason}")
        else:
            of_command.setdefault(command(condition), []).append(names[i])
    notes = []
    if differing:
        notes.append(f"without a control, since more than the rule differs: {first(differing, '; ')}")
    by_use = sorted(of_command.items(), key=lambda item: -len(item[1]))
    for words, of in by_use[:COMMANDS]:
        notes.append(f"no control of {first(of, ', ', RUNS)}; train it, and compare both folders: {words}")
    if others := [name for _, of in by_use[COMMANDS:] for name in of]:
        notes.append(f"no control of {first(others, ', ', RUNS)} either, which need other commands")
    own = [names[i] for i in sorted(without) if conditions[i].run.choices["rule"] in OWN_READOUTS]
    if own:
        notes.append(
            f"with readouts of their own: {first(own, ', ', RUNS)}; trained again with 'frozen=[stages_*]', each "
            "has a control whose readouts learn"
        )
    return notes


def command(condition: Condition) -> str:
    """Returns the command that trains the control of a condition, from the one that trained the condition."""
    choices, typed = condition.run.choices, condition.run.environment.get("command", [])[1:]
    made_by = str((condition.run.config.get("architecture") or {}).get("_target_", BUILT_IN))
    is_known = made_by.startswith(BUILT_IN) and made_by != MODULE
    control = CONTROLS[0] if is_known and choices.get("architecture") not in FIRST_LAYER_HIDDEN else CONTROLS[1]
    words = [word for word in typed if word not in ("--multirun", "-m")]
    kept = [word for word in words if not word.startswith(OF_THE_RULE)]
    if not typed or not all("=" in word and not NAMES_CODE.search(word) for word in kept):
        return f"rule={control}, all else equal"
    many = ["--multirun"] if any("," in word and "[" not in word for word in kept) else []
    feedback = ["feedback=null"] if any(word.startswith("experiment=") for word in kept) else []
    words = ["fa-jax", *many, *kept, f"rule={control}", *feedback, *_set_by_the_rule(condition, kept)]
    return " ".join(word if PLAIN.fullmatch(word) else shlex.quote(word) for word in words)


def _set_by_the_rule(condition: Condition, typed: Sequence[str]) -> list[str]:
    """Returns arguments that give a control the optimizer and the units of a run, whose rule may have chosen them."""
    activation = (condition.run.config.get("architecture") or {}).get("activation")
    chosen = {"optimizer": condition.run.choices.get("optimizer"), "architecture.activation": activation}
    given = {word.partition("=")[0] for word in typed}
    words = {name: f"{name}={value}" for name, value in chosen.items() if value not in (None, USUAL[name])}
    return [word for name, word in words.items() if name not in given and not NAMES_CODE.search(word)]


def _pairs(conditions: Sequence[Condition], names: Sequence[str]) -> set[tuple[int, int]]:
    """Returns the pairs of a condition and a control that differs in the rule, or in what is frozen, alone."""
    rules = [condition.run.choices["rule"] for condition in conditions]
    of_rule = [i for i, condition in enumerate(conditions) if not _is_control(condition)]
    pairs = set()
    for control in CONTROLS:
        if control in rules:
            pairs |= {(i, j) for i, j in planned(conditions, names, control) if i in of_rule}
    frozen: dict[tuple, list[int]] = {}
    for j, condition in enumerate(conditions):
        if _is_frozen(condition):
            frozen.setdefault(_identity(condition, without=(*FREEZING, *RATES)), []).append(j)
    for i in of_rule if frozen else ():
        versions = frozen.get(_identity(conditions[i], without=(*FREEZING, *RATES)), [])
        same = [j for j in versions if _identity(conditions[j], FREEZING) == _identity(conditions[i], FREEZING)]
        pairs |= {(i, j) for j in same or (versions if len(versions) == 1 else [])}
    return pairs


def _is_control(condition: Condition) -> bool:
    return condition.run.choices["rule"] in CONTROLS or _is_frozen(condition)


def _is_frozen(condition: Condition) -> bool:
    options = condition.run.options
    return any(name in options and value in (None, options[name]) for name, value in FREEZING.items())


def _settings(conditions: Sequence[Condition]) -> list[int]:
    """Returns for each condition how many differ from it in what is tuned alone, itself included."""
    keys = [(_is_frozen(condition), _identity(condition, without=TUNED)) for condition in conditions]
    counts = Counter(keys)
    return [counts[key] for key in keys]


def _alike(condition: Condition, control: Condition) -> bool:
    return all(condition.run.choices.get(g) == control.run.choices.get(g) for g in ("task", "architecture"))


def _identity(condition: Condition, without: Iterable[str]) -> tuple:
    """Returns what a condition is, without the options whose names start in some way."""
    left_out = tuple(without)
    options = {key: value for key, value in condition.run.options.items() if not key.startswith(left_out)}
    choices = {group: condition.run.choices.get(group) for group in ("task", "rule", "architecture")}
    return tuple(sorted(options.items())), tuple(choices.items())


def _unequal(condition: Condition, control: Condition) -> tuple[str, ...]:
    ours, theirs = condition.run.options, control.run.options
    keys = [key for key in sorted(ours.keys() | theirs.keys()) if not key.startswith((*TUNED, "frozen"))]
    texts = [f"{key} ({ours.get(key)} and {theirs.get(key)})" for key in keys if ours.get(key) != theirs.get(key)]
    seeds = [len(c.run.seeds) for c in (condition, control)]
    if set(condition.run.seeds) != set(control.run.seeds):
        texts.append(f"seeds ({seeds[0]} and {seeds[1]})" if seeds[0] != seeds[1] else "the choice of seeds")
    return tuple(texts)
