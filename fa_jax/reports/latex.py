"""Tables of recorded runs for LaTeX: environments that fit a page of one column. Recorded text is escaped."""

import re
import textwrap
from collections.abc import Iterable
from typing import NamedTuple

from fa_jax.reports.export import SUPERSCRIPTS, typeset
from fa_jax.reports.tables import Table
from fa_jax.user.text import printable

LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {"<": "$<$", ">": "$>$", "|": r"\textbar{}", '"': r"\textquotedbl{}"}
LATEX |= {"±": r"$\pm$", "−": "$-$", "×": r"$\times$", "÷": r"$\div$", "°": r"$^\circ$", "–": "--", "†": r"\dag{}"}
"""What characters are in LaTeX."""
PLAIN_DIGITS = str.maketrans(SUPERSCRIPTS, "0123456789-")
LINE = 345.0
"""The width of a line in points: that of the class `article` in 10 points, with one column."""
HEADING, TIGHT = 20, 9
"""The most characters in a line of a heading, unless cells of its column are longer; and in a small table."""


class Size(NamedTuple):
    """How small a table is set."""

    command: str
    letter: float
    """The width of a character in points."""
    separation: float
    """Half of the space between columns, in points."""

    @property
    def preamble(self) -> str:
        """What stands before the table."""
        return rf"{self.command}\setlength{{\tabcolsep}}{{{self.separation:g}pt}}" if self.command else ""


NORMAL, SMALL = Size("", 5.2, 6.0), Size(r"\small", 4.8, 4.0)
FOOTNOTE, SCRIPT = Size(r"\footnotesize", 4.4, 3.0), Size(r"\scriptsize", 3.9, 2.0)
ATTEMPTS = ((NORMAL, None), (SMALL, None), (SMALL, 24), (FOOTNOTE, None), (FOOTNOTE, 18), (SCRIPT, 10))
"""Sizes, each with the fewest characters in a line of the first column; None: its cells are not broken."""


def latex(table: Table, label: str = "comparison") -> str:
    """Returns a LaTeX `table` environment with rules of booktabs, in the largest letters with which it fits a line."""
    size, heads, first = _fitted(table)
    rows = [[_text(cell) for cell in row] for row in table.rows]
    for row in rows:
        row[0] = row[0].replace(" - ", " $-$~")  # of two conditions, the second begins a line with its sign
    for i, j in table.bold:
        rows[i][j] = rf"\textbf{{{rows[i][j]}}}"
    # One paragraph of sentences: a caption may not hold an empty line.
    caption = " ".join(f"{_text(line[0].upper() + line[1:])}." for line in table.caption.split("\n") if line)
    packages = "booktabs" if first == "l" else "array,booktabs"
    lines = [f"% needs \\usepackage{{{packages}}}", r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
    lines += [rf"\label{{tab:{label}}}", *([size.preamble] if size.preamble else [])]
    lines += [rf"\begin{{tabular}}{{{first}{'r' * (len(heads) - 1)}}}", r"\toprule", _row(map(_heading, heads))]
    lines += [r"\midrule", *map(_row, rows), r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)


def _fitted(table: Table) -> tuple[Size, list[list[str]], str]:
    """Returns the size of a table, its headings in lines, and how its first column is set."""
    heads = [_broken(heading, max(_longest(table, j), HEADING)) for j, heading in enumerate(table.headings)]
    tight = [_broken(heading, max(_longest(table, j), TIGHT)) for j, heading in enumerate(table.headings)]
    size, free = NORMAL, 0.0
    for size, fewest in ATTEMPTS:
        heads = heads if size is NORMAL else tight
        widths = [max(_longest(table, j), *map(len, lines)) for j, lines in enumerate(heads)]
        free = LINE - 2 * size.separation * len(widths) - size.letter * sum(widths[1:])
        if size.letter * widths[0] <= free:
            return size, heads, "l"
        if fewest is not None and size.letter * fewest <= free:
            break
    width = max(free, size.letter * ATTEMPTS[-1][1])  # wider than the line, if even the smallest letters are too large
    return size, heads, rf">{{\raggedright\hangindent=1em\arraybackslash}}p{{{width:.0f}pt}}"


def _longest(table: Table, column: int) -> int:
    """Returns the most characters of the cells of a column."""
    return max((len(typeset(printable(row[column]))) for row in table.rows), default=1)


def _broken(heading: str, width: int) -> list[str]:
    return textwrap.wrap(printable(heading), width, break_long_words=False) or [""]


def _row(cells: Iterable[str]) -> str:
    text = " & ".join(cells)
    # Braces keep a bracket or a star after the end of a row from being its argument.
    return f"{'{}' if text[:1] in ('[', '*') else ''}{text} \\\\"


def _heading(lines: list[str]) -> str:
    """Returns a heading in lines."""
    texts = list(map(_text, lines))
    # Braces keep a bracket after a line's end from being its argument.
    return texts[0] if len(texts) == 1 else r"\shortstack[r]{" + r" \\{} ".join(texts) + "}"


def _text(text: str) -> str:
    """Returns text in which nothing is a command in LaTeX, with signs as LaTeX writes them."""
    escaped = "".join(LATEX.get(character, character) for character in typeset(printable(text)))
    powers = re.sub(f"10([{SUPERSCRIPTS}]+)", lambda power: f"$10^{{{power[1].translate(PLAIN_DIGITS)}}}$", escaped)
    return re.sub(r"(?<!\\)\$\$", "", powers)  # two formulas side by side are one
