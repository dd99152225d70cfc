"""Text of users and of recorded runs, made safe to show in a terminal."""

import unicodedata
from typing import Any

from rich.console import Console
from rich.text import Text

UNSAFE = ("Cc", "Cs", "Zl", "Zp")
"""The Unicode categories of characters that control a terminal, end a line, or cannot be encoded."""
REORDERING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that make text appear in another order than it has."""


def printable(text: Any) -> str:
    r"""Returns text on one line in which unsafe characters are written as in Python, such as `\x1b`."""
    return "".join(c if c.isascii() and c.isprintable() else _shown(c) for c in str(text))


def say(console: Console, text: Any, style: str = "") -> None:
    """Prints one line of text as it is: nothing in it is markup, a link, an emoji or a command to the terminal."""
    console.print(Text(printable(text), style=style), soft_wrap=True, highlight=False)


def _shown(character: str) -> str:
    if unicodedata.category(character) in UNSAFE or character in REORDERING:
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return character
