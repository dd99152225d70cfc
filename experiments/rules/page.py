"""The page of a learning rule."""

import re
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from experiments.rules.recorded import Recorded, cost
from experiments.rules.results import Result
from experiments.rules.sources import Docstring, Preset, Rule, logged_columns

QUESTIONS = {
    "weights": "Does the learning signal need the forward weights of the layers above?",
    "error": "Does it need the output error?",
    "pass": "Does it need a pass over the network beyond the forward pass and the one that delivers it?",
    "labels": "Where do labels enter?",
    "stored": "Which activations are kept until it arrives?",
}
"""The questions that the columns of `needs.csv` answer."""
FEEDBACK = {"none": "none", "fixed": "feedback that is drawn once", "learned": "feedback that changes in training"}
PARTLY = {"number": "one number", "signs": "the signs alone"}
"""Answers of `needs.csv`, as the pages spell them."""
DEFAULT_SEEDS = 5
"""Those of conf/config.yaml."""
NOTATION = "[Notation](README.md#notation)"


def page(rule: Rule, recorded: Recorded) -> str:
    """Returns the page of a rule."""
    parts = [
        f"# {rule.title}: `{rule.name}`",
        _sentence(rule.docstring.summary.removeprefix(f"{rule.title}: ")),
        f"{rule.paper}. Code: {_link(rule.file)}. Options: {_link(Path('conf/rule', f'{rule.name}.yaml'))}. "
        f"{NOTATION}. [All rules](README.md).",
        "## Equations",
        _prose(rule.docstring.equations, rule, recorded),
        *(part for path, docstring in rule.others.items() for part in _other(path, docstring, rule, recorded)),
        "## The paper, and what is different here",
        _prose(rule.docstring.paper, rule, recorded),
        "## What it needs",
        _needs(recorded.needs[rule.name], recorded.asked[rule.name]),
        "## How to train it",
        _commands(rule),
        "## Options",
        _options(rule),
        "## What is logged",
        _logged(recorded.asked[rule.name]["logged"]),
        "## Measured",
        _measured(rule, recorded),
        *_other_results(rule, recorded),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _link(path: Path) -> str:
    return f"[{path.name}](../../{path.as_posix()})"


def markdown_table(rows: Sequence[Sequence[str]], columns: dict[str, str]) -> str:
    """Returns a table in Markdown, without padding.

    Args:
      rows: the cells.
      columns: the alignment of each column, `left` or `right`, by its header.
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    aligned = tabulate(cells, list(columns), "pipe", disable_numparse=True, colalign=list(columns.values()))
    return re.sub(r"-{4,}", "---", re.sub(r" {2,}", " ", aligned))


def _prose(text: str, rule: Rule, recorded: Recorded) -> str:
    """Returns the text of a docstring with links to the pages of the other rules that it names."""

    def linked(match: re.Match) -> str:
        name = match[1]
        return f"[`{name}`]({name}.md)" if name in recorded.rules and name != rule.name else match[0]

    lines = [line if line.startswith("    ") else re.sub(r"`(\w+)`", linked, line) for line in text.splitlines()]
    return "\n".join(lines)


def _other(path: Path, docstring: Docstring, rule: Rule, recorded: Recorded) -> list[str]:
    """Returns the section about another module of the rule's folder."""
    text = "\n\n".join(part for part in (docstring.equations, docstring.paper) if part)
    return [f"### {docstring.summary.rstrip('.')}", f"From {_link(path)}.", _prose(text, rule, recorded)]


def _needs(row: dict[str, str], answers: dict) -> str:
    answered = {column: answer.partition(":") for column, answer in row.items()}
    lines = [
        [question, "".join((PARTLY.get(answered[column][0], answered[column][0]), *answered[column][1:]))]
        for column, question in QUESTIONS.items()
    ]
    lines.append(["Which state does it have beside the params?", FEEDBACK[answers["feedback"]]])
    table = markdown_table(
        [[question, _sentence(answer)] for question, answer in lines], {"question": "left", "": "left"}
    )
    return f"{table}\n\n{_defined(answers)}"


def _sentence(answer: str) -> str:
    return answer[0].upper() + answer[1:]


def _defined(answers: dict) -> str:
    """Returns where a rule is defined, and what is said elsewhere."""
    lines = []
    for group, of in (("architecture", "architectures"), ("loss", "losses")):
        accepted = [f"`{name}`" for name, refusal in answers[group].items() if refusal is None]
        reasons: dict[str, list[str]] = {}
        for name, refusal in answers[group].items():
            if refusal is not None:
                reasons.setdefault(refusal, []).append(f"`{name}`")
        text = f"* Built-in {of}: {', '.join(accepted)}."
        for refusal, names in reasons.items():
            text += f" With {', '.join(names)}, it is refused: “{refusal}”"
        lines.append(text)
    lines.append(f"* Targets: {'classes' if answers['needs_classes'] else 'classes or real values'}.")
    return "With its default options, the rule is defined for:\n\n" + "\n".join(lines)


def _commands(rule: Rule) -> str:
    others = ",".join(dict.fromkeys(("shallow", "bp", rule.name)))
    wide = "architecture.hidden=[100,100]"
    commands = f"fa-jax task=digits rule={rule.name}\nfa-jax --multirun task=digits {wide} rule={others}"
    block = f"```bash\n{commands}\n```"
    if not rule.recipes:
        return block
    recipes = markdown_table(
        [[f"`fa-jax experiment={name}`", comment.rstrip(".")] for name, comment in rule.recipes.items()],
        {"command": "left", "recipe": "left"},
    )
    return f"{block}\n\nThese commands have the settings of a paper:\n\n{recipes}"


def _options(rule: Rule) -> str:
    columns = {"option": "left", "default": "left", "meaning": "left"}
    rows = [[f"`{option.name}`", f"`{option.default}`", option.meaning] for option in rule.options]
    none = "The rule has no options of its own."
    more = "All rules share those of the task, architecture, loss and optimizer ([conf](../../conf/README.md))."
    return "\n\n".join([markdown_table(rows, columns) if rows else none, *_presets(rule.presets), more])


def _presets(presets: Sequence[Preset]) -> list[str]:
    """Returns the defaults that differ by architecture or task: those of one reason in one row."""
    alike: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for preset in presets:
        choices = " ".join(f"`{choice}`" for choice in preset.choices)
        alike.setdefault((preset.options, preset.reason), []).append(choices)
    rows = [
        [", ".join(choices), ", ".join(f"`{option}`" for option in options), reason.rstrip(".")]
        for (options, reason), choices in alike.items()
    ]
    table = markdown_table(rows, {"with": "left", "default": "left", "reason": "left"})
    explanation = "With these tasks and architectures, there are other defaults ([conf/preset](../../conf/preset)):"
    return [explanation, table] if rows else []


def _logged(names: Sequence[str]) -> str:
    """Returns the table of the metrics of a rule, as outputs/README.md describes them."""
    described = logged_columns()
    if missing := sorted(set(names) - described.keys()):
        raise ValueError(f"{missing[0]} needs a row in the table of columns of outputs/README.md")
    meanings: dict[str, list[str]] = {}
    for name in (name for name in described if name in names):
        meanings.setdefault(described[name], []).append(name)
    rows = [[", ".join(f"`{name}`" for name in names), meaning] for meaning, names in meanings.items()]
    also = "Loss and error on training and test data are logged for every rule ([outputs](../../outputs/README.md))."
    return f"{markdown_table(rows, {'column': 'left', 'meaning': 'left'})}\n\n{also}"


def _measured(rule: Rule, recorded: Recorded) -> str:
    """Returns what was measured of a rule with tuned values."""
    rows = [row for row in recorded.measured if row["rule"] == rule.name and row["values"] == "tuned"]
    return _tuned(rows, recorded) if rows else "It was not tuned yet."


def _other_results(rule: Rule, recorded: Recorded) -> list[str]:
    """Returns the section of what other experiments measured; none if they did not."""
    others = [
        [f"[{r.experiment}](../{r.experiment})", r.what, r.seeds, r.result]
        for r in sorted(recorded.results, key=_in_order)
        if r.rule == rule.name
    ]
    if not others:
        return []
    table = markdown_table(others, {"experiment": "left", "what": "left", "seeds": "right", "result": "left"})
    explanation = "Their pages have the commands and the settings. Errors are test errors."
    return ["## In other experiments", f"{explanation}\n\n{table}"]


def _in_order(result: Result) -> list:
    """Returns by what results are sorted: experiment and name, in which numbers count as such."""
    parts = re.split(r"(\d+(?:\.\d+)?)", f"{result.experiment} {result.what}")
    return [(float(part), "") if i % 2 else (0.0, part) for i, part in enumerate(parts)]


def _tuned(rows: Sequence[dict[str, str]], recorded: Recorded) -> str:
    lines, commands = [], []
    for row in rows:
        where = row["task"], row["architecture"]
        plain = recorded.row(row["rule"], *where, "as it comes") or {}
        bp, control = (recorded.row(rule, *where) or {} for rule in ("bp", "shallow"))
        edge = " (edge)" if row["at the edge of the grid"] == "True" else ""
        lines.append(
            [
                *where,
                row["test error"],
                f"{row['low']} to {row['high']}",
                row["n"],
                plain.get("test error", ""),
                bp.get("test error", ""),
                control.get("test error", ""),
                row["learning rate"] + edge,
                row["feedback scale"] or "-",
                f"{row['angle of the first layer']}°" if row["angle of the first layer"] else "-",
                cost(row, bp),
            ]
        )
        commands.append(_command(row, recorded))
    errors = "tuned (%)", "95 % interval", "n", "default (%)", "`bp` (%)", "`shallow` (%)"
    numbers = (*errors, "learning rate", "scale", "angle", "cost")
    table = markdown_table(lines, {"task": "left", "architecture": "left", **dict.fromkeys(numbers, "right")})
    return (
        f"{table}\n\n[What the columns mean](README.md#measured-numbers). These commands give the tuned errors:\n\n"
        + ("```bash\n" + "\n".join(commands) + "\n```")
    )


def _command(row: dict[str, str], recorded: Recorded) -> str:
    """Returns the command that trains the tuned values, with as many seeds."""
    key = row["task"], row["architecture"], row["rule"]
    (tuned,) = [r for r in recorded.tuned if (r["task"], r["architecture"], r["rule"]) == key]
    epochs = re.search(r"--epochs (\S+)", tuned["command"])
    words = [f"task={key[0]}", f"architecture={key[1]}", f"rule={key[2]}", *([f"epochs={epochs[1]}"] if epochs else [])]
    seeds = int(row["n"]) + int(row["diverged"])
    return " ".join(["fa-jax", *words, *([] if seeds == DEFAULT_SEEDS else [f"seeds={seeds}"]), "tuned=true"])
