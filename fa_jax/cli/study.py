"""The database of a study, SQLite, which Optuna reads and writes: opened safely, with errors of one line."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fa_jax.checks import BadOption
from fa_jax.cli.errors import first_line
from fa_jax.records.reader import STUDY

END_OF_NAME = bytes.fromhex("d9d505f920a163d7")
"""The end of a journal of SQLite that names another file; see `_check_journal`."""


def storage(path: Path) -> Any:
    """Returns the storage of a study in a file; its path may have characters that would end a URL."""
    import optuna
    import sqlalchemy

    def connect():
        # Threads may share a connection, as SQLAlchemy itself has it for files.
        connection = sqlite3.connect(path, check_same_thread=False)
        connection.execute("PRAGMA trusted_schema = OFF")  # the file may come from anyone
        return connection

    _check_journal(path)
    engine = {"creator": connect, "poolclass": sqlalchemy.QueuePool}
    return optuna.storages.RDBStorage("sqlite://", engine_kwargs=engine)


def opened(load: Callable[[], Any], path: Path) -> Any:
    """Returns the study that Optuna loads from a file, after it has read every trial: they may come from anyone.

    Raises:
      KeyError: if there is no such study in the file.
      BadOption: if what the file has of it cannot be read.
    """
    try:
        study = load()
        for trial in study.trials:
            float(trial.value or 0)
    except (KeyError, *_errors()):
        raise
    except Exception as problem:  # whatever damaged JSON, and other types than those of Optuna, lead to
        raise BadOption(f"output={path.parent}: {path.name} cannot be read: {first_line(problem)}") from problem
    return study


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turns errors of the database of a study, such as a full disk, into `BadOption`."""
    try:
        yield
    except _errors() as problem:
        reason = problem.__cause__ or problem  # Optuna's own message is about its sessions
        reason = str(getattr(reason, "orig", reason)).partition("\n")[0]
        raise BadOption(f"output={folder}: {STUDY} cannot be read or written: {reason}") from problem


def _errors() -> tuple[type[Exception], ...]:
    """Returns the errors of the database."""
    import optuna
    import sqlalchemy.exc

    return optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error


def _check_journal(path: Path) -> None:
    """Checks the journal that a killed transaction of a study left: SQLite undoes it when it opens the study.

    A journal may name a file that belongs to several databases. SQLite deletes that file, wherever it is. A study is a
    single database, so its own journals name none.

    Raises:
      BadOption: if the journal names a file.
    """
    journal = path.with_name(f"{path.name}-journal")
    if journal.is_file() and journal.read_bytes()[-len(END_OF_NAME) :] == END_OF_NAME:
        raise BadOption(f"output={path.parent}: {journal.name} is none of fa_jax's, and could delete other files")
