"""Writes a page for each learning rule, and the tables of rules in README.md and experiments/rules/README.md.

    python -m experiments.rules.pages            from what is recorded
    python -m experiments.rules.pages --ask      asks the code first where each rule is defined (asked.json); minutes

A page is made from the docstring and the YAML file of its rule, the recorded results, what the code said when it was
asked, and `needs.csv`, which is written by hand.
"""

import argparse
from pathlib import Path

from experiments.rules import asked
from experiments.rules.page import markdown_table, page
from experiments.rules.recorded import Recorded, cost
from experiments.rules.sources import HERE, ROOT

README_TABLE = {
    "rule": "left",
    "idea": "left",
    "paper": "left",
    "MNIST error": "right",
    "cost": "right",
    "weights": "left",
    "error": "left",
    "pass": "left",
}


def rule_table(recorded: Recorded, prefix: str) -> str:
    """Returns the table of all rules.

    Args:
      prefix: of the links to the pages.
    """
    lines = []
    for name in ordered(recorded):
        rule, row = recorded.rules[name], recorded.row(name, "mnist", "mlp")
        bp = recorded.row("bp", "mnist", "mlp") or {}
        answers = [recorded.needs[name][column].partition(":")[0] for column in ("weights", "error", "pass")]
        error = "" if row is None else f"{row['test error']} ± {_half_interval(row)} ({row['n']})"
        ratio = "" if row is None else cost(row, bp)
        lines.append([f"[`{name}`]({prefix}{name}.md)", rule.idea, rule.paper, error, ratio, *answers])
    return markdown_table(lines, README_TABLE)


def _half_interval(row: dict[str, str]) -> str:
    return f"{(float(row['high']) - float(row['low'])) / 2:.2f}"


def ordered(recorded: Recorded) -> list[str]:
    """Returns the names of the rules in the order of `needs.csv`."""
    return list(recorded.needs)


def architecture_table(recorded: Recorded) -> str:
    """Returns the table of the built-in architectures that each rule is defined on."""
    answers = {name: recorded.asked[name]["architecture"] for name in ordered(recorded)}
    architectures = list(next(iter(answers.values())))
    rows = [
        [f"[`{rule}`]({rule}.md)", *("" if by_architecture[name] else "yes" for name in architectures)]
        for rule, by_architecture in answers.items()
    ]
    return markdown_table(rows, {"rule, by architecture": "left", **{f"`{name}`": "left" for name in architectures}})


def with_table(text: str, table: str) -> str:
    """Returns a page with a table in place of the one with the same first column."""
    lines, first = text.splitlines(), table.partition(" |")[0]
    begin = next((i for i, line in enumerate(lines) if line.startswith(f"{first} |")), None)
    if begin is None:
        raise ValueError(f"the page has no table that begins with {first}")
    end = next((i for i in range(begin, len(lines)) if not lines[i].startswith("|")), len(lines))
    return "\n".join([*lines[:begin], *table.splitlines(), *lines[end:]]) + "\n"


def written() -> dict[Path, str]:
    """Returns the text of every page, by path."""
    recorded = Recorded()
    pages = {HERE / f"{name}.md": page(rule, recorded) for name, rule in recorded.rules.items()}
    index, readme = HERE / "README.md", ROOT / "README.md"
    pages[readme] = with_table(readme.read_text(), rule_table(recorded, "experiments/rules/"))
    with_rules = with_table(index.read_text(), rule_table(recorded, ""))
    pages[index] = with_table(with_rules, architecture_table(recorded))
    return pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ask", action="store_true", help="build every rule on every architecture and loss first")
    if parser.parse_args().ask:
        asked.main()
    for path, text in written().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
