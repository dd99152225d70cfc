"""Records of random types are skipped with one line; the verbs that read them never print a traceback."""

import contextlib
import copy
import io
import json
import logging
import random
import shutil

import numpy as np
import pytest
import yaml

from fa_jax.cli.main import main
from fa_jax.records.files import write_json
from fa_jax.records.reader import SWEEP, find_runs, read_run
from fa_jax.records.writer import Writer
from tests.reports.conftest import CHOICES, COST, declare

JSON_FILES = ("status.json", "summary.json", "environment.json", "metrics.json", SWEEP)
FILES = ("config.yaml", "metrics.csv", *JSON_FILES)
VALUES = (
    *(None, True, False, 0, -1, 1, 7, 10**6, 2**63, 10**30, 10**400, 0.5, -1e308, 1e308, float("nan"), float("inf")),
    *(
        "",
        "x",
        "1",
        "nan",
        "-1",
        "=1+1",
        "[/b]",
        "\x1b]52;c;x\x07",
        "a\nb",
        "$x",
        "${seed}",
        "???",
        "../..",
        "é学",
        "_",
    ),
    *(
        [],
        {},
        [1],
        [[]],
        [None],
        {"a": 1},
        {"a": {"b": [1, "c"]}},
        {"_target_": "os.getcwd"},
        ["a", 1.5, None],
        "a" * 999,
    ),
)
CELLS = (
    "",
    "x",
    "nan",
    "inf",
    "-1",
    "1e400",
    "1e308",
    "-1e308",
    "0.5",
    '"',
    "1,2",
    "\x00",
    "#",
    "a" * 200_000,
    "١",
    " ",
    "\n",
)


def record(folder, rule):
    """A finished run of two seeds."""
    config = {"choices": {"rule": rule, **CHOICES}, "seeds": 2, "epochs": 1, "spacing": "linear"}
    config |= {
        "optimizer": {"learning_rate": 0.1, "schedule": None},
        "architecture": {"hidden": [3, 4]},
        "tuned": False,
    }
    writer = Writer(folder, config, declare("nse", "error"), command=["fa-jax", f"rule={rule}"])
    for step in (0, 5, 10):
        columns = {"test_nse": [1.0, 0.1 / (step + 1)], "test_error": [9.0, 80.0 - step], "test_loss": [1.0, 2.0]}
        columns |= {"signal_angle_0": [30.0, 40.0 + step]}
        arrays = {name: np.asarray(values) for name, values in columns.items()}
        writer.evaluation([0, 1], step, 10 * step, step / 10, arrays)
    writer.summary(COST)
    writer.status("finished")
    writer.close()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep of two runs."""
    folder = tmp_path_factory.mktemp("records") / "sweep"
    for number, rule in enumerate(("bp", "fa")):
        record(folder / f"{number}_{rule}", rule)
    write_json(folder / SWEEP, {"overrides": ["rule=bp,fa"], "config_dir": None, "jobs": 2})
    return folder


def places(content, path=()):
    """Yields the path of every value."""
    if path:
        yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def change(content, draw):
    """Changes one value: another takes its place, its key changes, or it is removed or wrapped."""
    chosen = draw.choice([(), *places(content)])
    if not chosen:
        return draw.choice([*copy.deepcopy(VALUES), deep(draw.choice([5, 40, 2000, 100_000]))])
    *path, last = chosen
    parent = content
    for key in path:
        parent = parent[key]
    how = draw.choice(["replaced"] * 4 + ["removed", "renamed", "wrapped", "added"])
    if how == "replaced":
        parent[last] = copy.deepcopy(draw.choice(VALUES))
    elif how == "wrapped":
        parent[last] = [parent[last]]
    elif how == "removed":
        del parent[last]
    elif isinstance(parent, dict):
        parent[str(draw.choice(VALUES))[:40]] = (
            parent.pop(last) if how == "renamed" else copy.deepcopy(draw.choice(VALUES))
        )
    return content


class Raw(str):
    """Text that is written as it is."""


def deep(levels):
    return Raw("[" * levels + "]" * levels)


def mutated(path, draw):
    """Returns the bytes of a file with some mistakes in them."""
    content = path.read_bytes()
    if draw.random() < 0.15:
        start = draw.randrange(len(content))
        return content[:start] + draw.randbytes(draw.randrange(5)) + content[start + draw.randrange(9) :]
    if path.name == "metrics.csv":
        rows = [line.split(",") for line in content.decode().splitlines()]
        for _ in range(draw.randint(1, 2)):
            row = draw.choice(rows)
            row[draw.randrange(len(row)) if row else 0 :][:1] = []
            row.insert(draw.randint(0, len(row)), draw.choice(CELLS)) if draw.random() < 0.9 else None
        return "".join(",".join(row) + "\n" for row in rows).encode()
    is_yaml = path.suffix == ".yaml"
    content = yaml.safe_load(content) if is_yaml else json.loads(content)
    for _ in range(draw.randint(1, 2)):
        content = change(content, draw) if isinstance(content, dict) else content
    if isinstance(content, Raw):
        return content.encode()
    dumped = yaml.safe_dump(content, allow_unicode=draw.random() < 0.5) if is_yaml else json.dumps(content)
    if is_yaml and draw.random() < 0.1:
        dumped += draw.choice(
            ["a: &a [x, x]\nb: *a\n", "c: !!python/object/apply:os.getcwd []\n", "<<: {d: 1}\n", "[1]: 2\n"]
        )
    return dumped.encode()


def why_unreadable(folder):
    """Returns why the run in a folder cannot be read; None if it can."""
    try:
        read_run(folder)
    except ValueError as problem:
        return str(problem)
    return None


def run_verb(words):
    """Runs a verb; returns its exit code and what it printed."""
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    logging.getLogger("fa_jax").addHandler(handler)
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            return main(words), printed.getvalue()
    finally:
        logging.getLogger("fa_jax").removeHandler(handler)


def check(sweep, folder, seed):
    """Mutates a copy of a sweep, and checks that it is read or refused with a line for each file."""
    draw = random.Random(seed)
    shutil.copytree(sweep, folder)
    name = draw.choice(FILES)
    target = (folder if name == SWEEP else folder / "1_fa") / name
    content = mutated(target, draw)
    target.write_bytes(content)
    what = (seed, name, content[:2000])
    problem = why_unreadable(folder / "1_fa")
    assert problem is None or (problem.startswith("its ") and "\n" not in problem and len(problem) < 500), what
    assert [run.folder.name for run in find_runs(folder)] == ["0_bp", *(["1_fa"] if problem is None else [])], what
    verb = draw.choice([*["status"] * 10, *["resume"] * 7, "compare", "report"])
    words = [f"resume={draw.choice([folder, folder / '1_fa'])}"] if verb == "resume" else [verb, str(folder)]
    code, printed = run_verb(words)
    assert code in ((0, 2) if verb == "resume" else (0,)), (what, words, printed)
    assert "Traceback" not in printed, what
    assert not set(printed) & {"\x1b", "\x07", "\x00"}, what
    shutil.rmtree(folder)


def test_twenty_random_records_are_read_or_skipped_with_one_line(sweep, folder):
    for seed in range(20):
        check(sweep, folder / "copy", seed)


@pytest.mark.slow
def test_ten_thousand_random_records_are_read_or_skipped_with_one_line(sweep, folder):
    for seed in range(20, 10_020):
        check(sweep, folder / "copy", seed)
