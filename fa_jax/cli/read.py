"""The verbs that read recorded runs: compare, report, status. They import no training code."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from fa_jax.checks import BadOption, choose, is_folder
from fa_jax.cli.groups import check_config_dir, take_config_dir
from fa_jax.records.files import remove_temporary
from fa_jax.records.reader import find_runs
from fa_jax.reports import comparison
from fa_jax.reports.options import IMAGES, figure_options, formats, listed, of_figures
from fa_jax.reports.status import status_table
from fa_jax.reports.tables import terminal, wide_console
from fa_jax.user.text import say

COMPARED = ("metric", "against", "contrasts", "output")
TABLE = ("columns", "contrast_columns", "spread", "format")
OPTIONS = {
    "compare": (*COMPARED, *TABLE, "title", "size", "font_size", "axis", "layers", "notes"),
    "report": (*COMPARED, "title", "axis", "layers"),
}
"""The options of each verb."""
OTHER_NUMBERS = (*COMPARED[:-1], *TABLE[:-1])
"""The options of a comparison that change what its tables hold, and not only how it looks."""
FILES = {"csv": "comparison.csv", "markdown": "comparison.md", "latex": "comparison.tex"}
"""The file of scores in each format of tables."""


def compare(words: Sequence[str]) -> None:
    """Compares the runs in folders: tables, contrasts with intervals and p, figures.

    With one format of tables, such as `format=latex`, the tables are printed in that format.
    """

    def write(compared: comparison.Comparison, folder: Path, options: Mapping[str, str]) -> None:
        chosen = formats(options.get("format"))
        columns, of_contrasts = (
            listed(options[name]) if name in options else None for name in ("columns", "contrast_columns")
        )
        spread = options.get("spread", "interval")
        drawn = figure_options(**of_figures(options))
        if not (set(chosen) & set(IMAGES)) and (typed := of_figures(options)):
            raise BadOption(f"must be left out with format={options['format']}, which draws nothing", next(iter(typed)))
        if not (set(chosen) & set(FILES)) and (typed := [name for name in TABLE[:-1] if name in options]):
            raise BadOption(f"must be left out with format={options['format']}, which has no table", typed[0])
        if of_contrasts and (chosen == ("csv",) or not compared.contrasts):
            reason = "with format=csv, which has all of them" if compared.contrasts else "since there are no contrasts"
            raise BadOption(f"must be left out {reason}", "contrast_columns")
        tables = {"columns": columns, "spread": spread, "contrast_columns": of_contrasts}
        comparison.write(compared, folder, drawn, formats=chosen, **tables)
        if len(chosen) == 1 and chosen[0] in FILES:
            print((folder / FILES[chosen[0]]).read_text(encoding="utf-8"), end="")
            comparison.show_notes(compared, Console(stderr=True))
        else:
            comparison.show(compared, wide_console(), **tables)

    _compare("compare", words, write, "comparison: {}/comparison.*")


def report(words: Sequence[str]) -> None:
    """Writes the HTML report of the runs in folders."""
    from fa_jax.reports.html import write_report

    def write(compared: comparison.Comparison, folder: Path, options: Mapping[str, str]) -> None:
        drawn = figure_options(**of_figures(options))
        folder.mkdir(parents=True, exist_ok=True)
        write_report(compared, folder / "report.html", drawn)

    _compare("report", words, write, "report: {}/report.html")


def status(words: Sequence[str]) -> None:
    """Prints how far the runs in folders have come."""
    folders = _folders("status", words)
    table = status_table(folders)
    if not table.rows:
        raise BadOption(f"status: no run is recorded in {' or '.join(map(str, folders))}")
    console = wide_console()
    console.print(terminal(table, console.width))


def _compare(
    verb: str,
    words: Sequence[str],
    write: Callable[[comparison.Comparison, Path, Mapping[str, str]], None],
    done: str,
) -> None:
    """Compares the runs in the folders of a verb, writes the result, and says where it is."""
    typed = [word for word in words if "=" in word and not is_folder(word)]
    options = dict(word.split("=", 1) for word in typed)
    for option in options:
        choose(f"{verb}: an option", option, dict.fromkeys(OPTIONS[verb]))
    folders = _folders(verb, [word for word in words if word not in typed])
    runs = find_runs(*folders)
    if not runs:
        raise BadOption(f"{verb}: no run is recorded in {' or '.join(map(str, folders))}")
    choices = {
        "metric": options.get("metric"),
        "against": options.get("against"),
        "contrasts": options.get("contrasts"),
    }
    compared = comparison.compare(runs, **choices)
    others = [f"{name}={value}" for name, value in options.items() if name in OTHER_NUMBERS and verb == "compare"]
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    # A comparison of other numbers must not replace a sweep's own.
    default = folders[0] if len(folders) == 1 and not others else Path("outputs/comparisons") / now
    output = Path(options.get("output", default))
    try:
        write(compared, output, options)
        remove_temporary(output)
    except OSError as problem:
        raise BadOption(f"output={output}: it cannot be written: {problem.strerror}") from None
    apart = f"; with {' '.join(others)} it does not take the place of the one in {folders[0]}"
    is_apart = others and len(folders) == 1 and "output" not in options
    text = done.format(output) + (apart if is_apart else "")
    say(Console(stderr=True) if options.get("format") in FILES else wide_console(), text)


def _folders(verb: str, words: Sequence[str]) -> list[Path]:
    config_dir, words = take_config_dir(words)  # configs are in the records already
    check_config_dir(config_dir)
    if not words:
        raise BadOption(f"{verb} needs the folder of a run or a sweep, as in fa-jax {verb} outputs")
    for word in words:
        if not is_folder(word):
            raise BadOption(f"{verb}: {word} is no folder")
    return [Path(word) for word in words]
