"""Text of users is shown as it is, and commands nothing."""

import io

import pytest
from rich.console import Console

from fa_jax.user.text import printable, say


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("\x1b]52;c;cm0=\x07", r"\x1b]52;c;cm0=\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\nb\rc\td\x7f", r"a\nb\rc\td\x7f"),
        ("a\u2028b\u202eb", r"a\u2028b\u202eb"),
        ("\udcff", r"\udcff"),
        ("Ø – 学 👩\u200d🔬", "Ø – 学 👩\u200d🔬"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_what_controls_a_terminal_is_written_out_and_other_text_stays(text, shown):
    assert printable(text) == shown


def test_a_line_is_printed_without_markup_emoji_or_wrapping():
    file = io.StringIO()
    line = "run[/b] [red]x[/red] [relu,tanh] :smile: " + 200 * "a"
    say(Console(file=file, width=20, force_terminal=True, color_system="truecolor"), line)
    assert file.getvalue() == f"{line}\n"
