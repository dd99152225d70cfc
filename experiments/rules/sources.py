"""What the pages of the rules are made from: docstrings, YAML files, and recorded tables."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.common import read_rows
from fa_jax.cli.groups import CONF, choices

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MEASURED = ROOT / "experiments" / "rules_by_architectures"
TITLE = re.compile(r"(?P<title>.+?) \((?P<paper>.+)\): (?P<idea>.+)\.")
"""The first line of a rule's YAML, such as `Feedback alignment (Lillicrap et al., 2014): the error travels back.`"""
CITATION = re.compile(r"(\* )?(\w+: )?[A-ZØ][\w. -]*(, [\w. -]+)*, \"")
"""The beginning of the part of a docstring that cites the paper: authors, then a title in quotes."""
OPTION = re.compile(r"(?P<indent> *)(?P<name>[\w@/]+):(?: (?P<value>[^#]*?))?(?:\s+# *(?P<comment>.*))?$")


class Option(NamedTuple):
    """An option as it is typed, its default, and the comment in its YAML."""

    name: str
    default: str
    meaning: str


class Docstring(NamedTuple):
    """A module's docstring in parts, as Markdown."""

    summary: str
    """Its first line."""
    equations: str
    """The text up to the paper, with the equations as indented blocks."""
    paper: str
    """The paper, what differs from it, and what was left out."""


class Preset(NamedTuple):
    """Defaults that a rule has with certain choices of other groups alone."""

    choices: tuple[str, ...]
    """Such as `architecture=transformer`."""
    options: tuple[str, ...]
    """Such as `feedback.scale=0.1`."""
    reason: str


class Rule(NamedTuple):
    """A rule as its files describe it."""

    name: str
    title: str
    paper: str
    """Authors and year."""
    idea: str
    file: Path
    """The module, relative to the root."""
    docstring: Docstring
    others: dict[Path, Docstring]
    """The modules of the same folder that the docstring refers to, for a rule in a folder."""
    options: list[Option]
    presets: list[Preset]
    feedback: str | None
    """The choice of the group `feedback`."""
    recipes: dict[str, str]
    """The experiments that use the rule, each with its comment."""


def rules() -> dict[str, Rule]:
    """Returns all rules by name."""
    recipes = _recipes()
    return {name: _rule(name, recipes.get(name, {})) for name in choices("rule")}


def needs() -> dict[str, dict[str, str]]:
    """Returns the rows of `needs.csv` by rule."""
    return {row.pop("rule"): row for row in read_rows(HERE / "needs.csv")}


def measured(task: str) -> list[dict[str, str]]:
    """Returns the recorded results of all rules on a task, by architecture."""
    return read_rows(MEASURED / f"measured_{task}.csv")


def logged_columns() -> dict[str, str]:
    """Returns what the columns of `metrics.csv` mean, by name."""
    rows = re.findall(r"^\| (`.+?`) \| (.+) \|$", (ROOT / "outputs" / "README.md").read_text(), re.MULTILINE)
    return {name: meaning for names, meaning in rows for name in re.findall(r"`([^`]+)`", names)}


def _rule(name: str, recipes: dict[str, str]) -> Rule:
    path = CONF / "rule" / f"{name}.yaml"
    first = TITLE.fullmatch(choices("rule")[name])
    if first is None:
        raise ValueError(f"the first line of {path.name} must be `title (paper): idea.`; got {choices('rule')[name]}")
    config = yaml.safe_load(path.read_text())
    file = Path(*config["rule"]["_target_"].split(".")[:-1]).with_suffix(".py")
    docstring = read_docstring(file)
    defaults = _defaults(config)
    others = {}
    if file.parent.name != "rules":
        siblings = (file.with_name(f"{word}.py") for word in re.findall(r"`(\w+)(?:\.py)?`", "".join(docstring)))
        others = {path: read_docstring(path) for path in siblings if (ROOT / path).exists() and path != file}
    return Rule(
        name,
        first["title"],
        first["paper"],
        first["idea"],
        file,
        docstring,
        others,
        _options(path, config, defaults),
        _presets(name, defaults),
        defaults.get("feedback"),
        recipes,
    )


def read_docstring(file: Path) -> Docstring:
    """Returns the docstring of a module, given relative to the root."""
    summary, *paragraphs = (ast.get_docstring(ast.parse((ROOT / file).read_text())) or "").split("\n\n")
    paper = next((i for i, text in enumerate(paragraphs) if CITATION.match(text.replace("\n", " "))), len(paragraphs))
    return Docstring(summary, "\n\n".join(paragraphs[:paper]), "\n\n".join(paragraphs[paper:]))


def _defaults(config: dict[str, Any]) -> dict[str, str]:
    """Returns the choices of other groups that a rule's YAML makes, such as `{"feedback": "layerwise"}`."""
    entries = [entry for entry in config.get("defaults", []) if isinstance(entry, dict)]
    chosen = {key.removeprefix("override ").lstrip("/"): choice for entry in entries for key, choice in entry.items()}
    return {key.rpartition("@")[2]: choice for key, choice in chosen.items()}


def _options(path: Path, config: dict[str, Any], defaults: dict[str, str]) -> list[Option]:
    """Returns the options of a rule, then those of its feedback, then what its YAML sets in other groups."""
    commented = dict(_commented(path))
    options = [option for name, option in commented.items() if name.startswith("rule.")]
    if "feedback" in defaults:
        drawn = _of_feedback(defaults["feedback"])
        for name in commented.keys() & drawn.keys():
            drawn[name] = commented[name]._replace(meaning=commented[name].meaning or drawn[name].meaning)
        options.append(Option("feedback", defaults["feedback"], _first_line("feedback", defaults["feedback"])))
        options += drawn.values()
    for group in ("optimizer", "feedback_optimizer", "architecture"):
        if group in defaults:
            described = "of the feedback" if group == "feedback_optimizer" else ""
            options.append(Option(group, defaults[group], described or _first_line("optimizer", defaults[group])))
        options += [option for name, option in commented.items() if name.startswith(f"{group}.")]
    return options


def _presets(rule: str, defaults: dict[str, str]) -> list[Preset]:
    """Returns the presets of a rule; choices that the rule makes itself are not named."""
    usual = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    made = {key: value for entry in usual if isinstance(entry, dict) for key, value in entry.items()} | defaults
    presets = []
    for path in sorted((CONF / "preset").rglob("*.yaml")):
        folder, *values = path.relative_to(CONF / "preset").with_suffix("").parts
        chosen = dict(zip(folder.split("_"), values, strict=True))
        if chosen.pop("rule", None) != rule:
            continue
        named = (f"{group}={value}" for group, value in chosen.items() if _is_task_or_network(group, value, made))
        options = (f"{group}.{name}={value}" for group, node in _content(path).items() for name, value in node.items())
        lines = path.read_text().splitlines()
        reason = " ".join(line[1:].strip() for line in lines if line.startswith("# ") and "@package" not in line)
        presets.append(
            Preset(tuple(named), tuple(option.replace("True", "true").replace(" ", "") for option in options), reason)
        )
    return presets


def _is_task_or_network(group: str, value: str, made: dict[str, str]) -> bool:
    """Returns whether a choice is to be named: of another group than those that a rule chooses, or another choice."""
    return group in ("task", "architecture") or made.get(group) != value


def _content(path: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(path.read_text())


def _first_line(group: str, choice: str) -> str:
    return choices(group)[choice].rstrip(".")


def _of_feedback(choice: str) -> dict[str, Option]:
    """Returns the options of a choice of feedback, those of the choice that it builds on first."""
    path = CONF / "feedback" / f"{choice}.yaml"
    options = {}
    for entry in yaml.safe_load(path.read_text()).get("defaults", []):
        options |= _of_feedback(entry) if entry != "_self_" else {}
    for name, option in _commented(path, "feedback."):
        inherited = options[name].meaning if name in options else ""
        options[name] = option._replace(meaning=option.meaning or inherited)
    return options


def _commented(path: Path, prefix: str = "") -> Iterable[tuple[str, Option]]:
    """Yields the options of a YAML file with their comments, by name."""
    group, option = prefix, None
    for line in path.read_text().splitlines():
        match, continued = OPTION.match(line), re.match(r"\s+# *(.*)", line)
        if continued and option:
            option = option._replace(meaning=f"{option.meaning} {continued[1]}")
        elif match and not match["indent"] and match["value"] is None:
            if option:
                yield option.name, option
            group, option = f"{match['name']}.", None
        elif match and not match["name"].startswith("_") and (match["indent"] or match["value"] is not None):
            if option:
                yield option.name, option
            group = group if match["indent"] else prefix
            option = Option(f"{group}{match['name']}", match["value"], match["comment"] or "")
    if option:
        yield option.name, option


def _recipes() -> dict[str, dict[str, str]]:
    """Returns the experiments of `conf/experiment` by the rule that they use, each with its whole comment."""
    recipes: dict[str, dict[str, str]] = {}
    for name, comment in choices("experiment").items():
        for rule in _rules_of(name):
            recipes.setdefault(rule, {})[name] = comment
    return recipes


def _rules_of(experiment: str) -> list[str]:
    """Returns the rules that an experiment trains."""
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    chosen = re.findall(r"^ *(?:- override /rule|rule): *([\w,]+)$", text, re.MULTILINE)
    if chosen:
        return [rule for line in chosen for rule in line.split(",")]
    return [rule for parent in re.findall(r"^ *- /experiment/(\S+)$", text, re.MULTILINE) for rule in _rules_of(parent)]
