"""Tasks of your own files: arrays in `.npz`, or the columns of a CSV file."""

import csv as csv_reader
from pathlib import Path
from typing import Any

import numpy as np

from fa_jax.checks import BadOption, nearest
from fa_jax.core import Task
from fa_jax.tasks.arrays import NAMES, from_arrays

SYNONYMS = {"x_train": "x", "y_train": "y"}
"""Other names of arrays in a file."""


def arrays(*, path: str, preprocessing: str | None, validation: int) -> Task:
    """Returns the task of the arrays in an `.npz` file.

    Args:
      path: of the file, with the arrays `x` and `y` (or `x_train` and `y_train`), and perhaps `x_test` and `y_test`,
        as for `from_arrays`. Without test examples, every fifth example is one, from the fifth on.
      preprocessing, validation: as for `from_arrays`.

    Raises:
      BadOption: if there is no such file, or what it holds does not fit.
    """
    return from_arrays(_read_npz(_file("path", path)), preprocessing=preprocessing, validation=validation)


def csv(
    *, path: str, target: str | list[str] | None, test_path: str | None, preprocessing: str | None, validation: int
) -> Task:
    """Returns the task of predicting one column of a CSV file, or several, from all others.

    The first row names the columns. Targets that are all whole numbers from 0, or that are text, are classes (text in
    alphabetical order); others are real numbers. Several target columns are real numbers.

    Args:
      path: of the file.
      target: the column or the columns to predict; None: the last one.
      test_path: another file with the test examples; None: every fifth row is one, from the fifth on.
      preprocessing, validation: as for `from_arrays`.

    Raises:
      BadOption: if a file is missing, or a column, or an entry that should be a number is none.
    """
    names, rows = _read_csv(_file("path", path))
    targets = [names[-1]] if target is None else [target] if isinstance(target, str) else target
    for name in targets:
        if name not in names:
            raise BadOption(f"must be one of {', '.join(names)}; got {name!r}{nearest(str(name), names)}", "target")
    parts = {"": rows}
    if test_path is not None:
        test_names, parts["_test"] = _read_csv(_file("test_path", test_path))
        if test_names != names:
            raise BadOption(
                f"must have the columns of path, {', '.join(names)}; got {', '.join(test_names)}", "test_path"
            )
    features = [i for i, name in enumerate(names) if name not in targets]
    columns = [names.index(name) for name in targets]
    labels = [[row[columns[0]] for row in part] for part in parts.values()] if len(columns) == 1 else []
    classes = _class_names([label for part in labels for label in part])
    content = {}
    for suffix, part in parts.items():
        option = f"{'test_' if suffix else ''}path"
        content[f"x{suffix}"] = _numbers(option, part, features, names)
        if classes is None:
            content[f"y{suffix}"] = _numbers(option, part, columns, names)
        else:
            content[f"y{suffix}"] = np.array([classes[row[columns[0]]] for row in part])
    return from_arrays(content, preprocessing=preprocessing, validation=validation)


def _file(option: str, path: Any) -> Path:
    """Returns the path of a file that exists."""
    if not isinstance(path, str) or not path:
        raise BadOption(f"must be the path of a file; got {path!r}", option)
    try:
        file = Path(path).expanduser()
        if file.is_file():
            return file
    except (OSError, RuntimeError) as problem:  # a name that is too long, or ~ of nobody
        raise BadOption(f"must be the path of a file; {problem}", option) from None
    raise BadOption(f"must be the path of a file; {file.absolute()} is none", option)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            names = list(loaded.files) if isinstance(loaded, np.lib.npyio.NpzFile) else []
            content = {SYNONYMS.get(name, name): loaded[name] for name in names if SYNONYMS.get(name, name) in NAMES}
    except Exception as problem:  # whatever zipfile and NumPy raise about damaged bytes, and lengths beyond memory
        raise BadOption(f"must be an .npz file of numbers; {path}: {problem}".partition("\n")[0], "path") from None
    if missing := [name for name in ("x", "y") if name not in content]:
        got = f"{path} has {', '.join(names) or 'no names'}, and no {missing[0]}"
        raise BadOption(f"must hold the arrays x and y, as of np.savez(path, x=x, y=y); {got}", "path")
    return content


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Returns the names of the columns, and the other rows."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv_reader.reader(file) if row]
    except (OSError, ValueError, csv_reader.Error) as problem:
        raise BadOption(f"must be a CSV file; {path}: {problem}", "path") from None
    if len(rows) < 2:
        raise BadOption(f"must have a row of names and rows of examples; {path} has {len(rows)}", "path")
    names = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise BadOption(f"has {len(names)} columns in its first row and {len(row)} in row {number}: {path}", "path")
    return names, [[entry.strip() for entry in row] for row in rows[1:]]


def _class_names(labels: list[str]) -> dict[str, int] | None:
    """Returns the class of each label; None if they are real numbers."""
    distinct = sorted(set(labels))
    if not distinct:
        return None
    try:
        numbers = [float(label) for label in distinct]
    except ValueError:
        return {label: i for i, label in enumerate(distinct)}
    if sorted(numbers) != list(range(len(numbers))):
        return None
    return {label: int(float(label)) for label in distinct}


def _numbers(option: str, rows: list[list[str]], columns: list[int], names: list[str]) -> np.ndarray:
    try:
        return np.array([[float(row[i]) for i in columns] for row in rows], np.float32)
    except ValueError:
        for number, row in enumerate(rows, 2):
            for i in columns:
                try:
                    float(row[i])
                except ValueError:
                    reason = f"needs numbers in the column {names[i]}; row {number} has {row[i]!r}"
                    raise BadOption(reason, option) from None
        raise AssertionError from None
