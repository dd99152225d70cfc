"""Random overrides: each set of them composes, or costs one clear line; a traceback never."""

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

import pytest

from fa_jax.checks import BadOption
from fa_jax.cli import help as catalogue
from fa_jax.cli.compose import compose as composed
from fa_jax.cli.compose import tell_apart
from fa_jax.cli.errors import _names, one_line_errors, plain
from fa_jax.cli.main import main

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

SMALL = [
    "task=digits",
    "epochs=0.05",
    "evaluations=1",
    "seeds=1",
    "probe=4",
    "checkpoint=false",
    "checkpoint_every=null",
]
TASKS = ("linear", "nonlinear", "digits")
"""Those that need no data."""
GROUPS = ("rule", "architecture", "loss", "optimizer", "optimizer/schedule")
VALUES = st.one_of(
    st.sampled_from(
        ["null", "true", "false", "nan", "inf", "-inf", "[]", "{}", "''", "x", "auto", "0", "1", "-1", "1e-9"]
    ),
    st.integers(-3, 12).map(str),
    st.floats(-2, 2, allow_nan=False).map(lambda v: f"{v:.3g}"),
    st.lists(st.integers(-1, 9), max_size=3).map(lambda v: str(v).replace(" ", "")),
    st.sampled_from(
        ["[1,a]", "[[1]]", "{a:1}", "1e400", "9999999999999", "-0.0", "${seed}", "${nothing}", "tanh", "zeros"]
    ),
    st.text("abz019.-_[]{},:=$'\" \\", max_size=6),
)
QUICK = hypothesis.settings(
    max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)


def option_names():
    """Every option there is with any rule, architecture, loss, optimizer or schedule, one choice changed at a time."""
    import hydra

    names = {}
    with hydra.initialize_config_dir(str(catalogue.CONF), version_base="1.3"):
        for group in (*GROUPS, "task"):
            for choice in catalogue.options(group) if group != "task" else TASKS:
                names |= dict.fromkeys(_names(plain(hydra.compose("config", [f"{group}={choice}"]))))
    return sorted(names)


NAMES = option_names()


@st.composite
def overrides(draw):
    """A task, some groups, some options; mostly names that exist, with any values."""
    words = [f"task={draw(st.sampled_from(TASKS))}"]
    for group in draw(st.lists(st.sampled_from(GROUPS), max_size=3, unique=True)):
        choices = [*catalogue.options(group), *(["nothing", "null"] if draw(st.integers(0, 9)) == 0 else [])]
        words.append(f"{group}={draw(st.sampled_from(choices))}")
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True)):
        prefix = draw(st.sampled_from(["", "", "", "", "", "+", "++", "~"]))
        words.append(f"{prefix}{name}={draw(VALUES)}")
    return words


def check(words):
    """Composes and checks; returns whether the words are fine."""
    try:
        with one_line_errors(words):
            composed(tell_apart(words))
    except BadOption as mistake:
        text = str(mistake)
        assert text, words
        assert "\n" not in text, words
        assert len(text) < 2000, words
        return False
    return True


def run(words):
    """Runs; exit codes 0, 1 or 2, and what goes wrong in one line."""
    folder = Path(tempfile.mkdtemp())
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            code = main([*words, f"hydra.run.dir={folder}/run", f"hydra.sweep.dir={folder}/sweep"])
        assert code in (0, 1, 2), words
        if code == 2:
            lines = [line for line in printed.getvalue().splitlines() if line.startswith("fa-jax: ")]
            assert len(lines) == 1, (words, printed.getvalue())
        assert "Traceback" not in printed.getvalue(), words
    finally:
        shutil.rmtree(folder)
    return code


@QUICK
@hypothesis.given(overrides())
def test_overrides_compose_or_cost_one_line(words):
    check(words)


@pytest.mark.slow
@hypothesis.settings(QUICK, max_examples=10_000)
@hypothesis.given(overrides())
def test_ten_thousand_overrides_compose_or_cost_one_line(words):
    check(words)


@pytest.mark.slow
@hypothesis.settings(QUICK, max_examples=200)
@hypothesis.given(overrides())
def test_two_hundred_run_or_cost_one_line(words):
    hypothesis.assume(check([*words, *SMALL]))
    run([*words, *SMALL])
