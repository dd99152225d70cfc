"""`fa_jax.load`, `compare` and `report`: recorded runs in Python."""

import functools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fa_jax.api.given_objects import given_object
from fa_jax.api.keywords import check_keywords, named_arguments
from fa_jax.api.run import Run
from fa_jax.api.runs import Runs
from fa_jax.api.train import GROUPS
from fa_jax.checks import BadOption, is_folder
from fa_jax.cli.build import build_recorded
from fa_jax.cli.given import Given
from fa_jax.cli.trust import Origin
from fa_jax.records.reader import Run as Record
from fa_jax.records.reader import find_runs, read_run
from fa_jax.records.sources import own_changes
from fa_jax.reports import comparison
from fa_jax.reports.options import figure_options
from fa_jax.training.job import Job


def load(folder: str | Path, *, trust: Sequence[str] | str = (), **objects: Any) -> Run:
    """Returns a recorded run, with the params of its seeds.

    The config of the run may call the factories of fa_jax alone, and functions of the packages that are trusted. A
    warning says which packages of your own have other sources than when it was trained.

    Args:
      folder: of the run, the one that holds its `config.yaml`.
      trust: packages of your own that its config may call, besides those that the environment variable `FA_JAX_TRUST`
        names.
      **objects: `task`, `network`, `rule`, `loss` or `optimizer`, if the run was given a Python object that its config
        cannot name. It is recognised by its code and its values, wherever it is defined now.

    Raises:
      BadOption: if there is no run, it cannot be read, or its config calls what is not trusted.
    """
    check_keywords("load", objects, (*GROUPS, "trust"))
    trusted = (trust,) if isinstance(trust, str) else tuple(trust)
    given = {GROUPS[name]: given_object(GROUPS[name], thing) for name, thing in objects.items()}
    option = f"load({str(folder)!r})"
    if not is_folder(folder) or not (Path(folder) / "config.yaml").exists():
        below = len(find_runs(Path(folder))) if is_folder(folder) else 0
        advice = f"; {below} are recorded below: fa_jax.compare opens them" if below else ""
        raise BadOption(f"{option}: no run is recorded there{advice}")
    try:
        record = read_run(folder)
    except (OSError, ValueError) as problem:
        raise BadOption(f"{option}: what is recorded there cannot be read: {problem}") from None
    run = Run.recorded(record, functools.partial(_job, record, trusted, given))
    _ = run.job  # now: what is not trusted, or does not exist, is refused here
    return run


@named_arguments("tables and figures are of the runs that it returns, as runs.contrasts(against='fa')")
def compare(*folders: str | Path, trust: Sequence[str] | str = ()) -> Runs:
    """Returns all recorded runs in folders, and in folders below them, to be compared.

    Args:
      *folders: of runs, of sweeps, or of several of them.
      trust: as for `load`; needed for what the networks compute, and not for tables and figures.

    Raises:
      BadOption: if there is no run.
    """
    records = find_runs(*_folders("compare", folders))
    if not records:
        raise BadOption(f"compare: no run is recorded in {' or '.join(map(str, folders))}")
    trusted = (trust,) if isinstance(trust, str) else tuple(trust)
    return Runs([Run.recorded(record, functools.partial(_job, record, trusted, {})) for record in records])


@named_arguments()
def report(
    *folders: str | Path | Runs,
    output: str | Path | None = None,
    metric: str | None = None,
    against: str | None = None,
    contrasts: str | None = None,
    title: str | None = None,
    axis: str | None = None,
    layers: Sequence[int] | None = None,
) -> Path:
    """Writes the report of runs, one HTML page that needs no network, and returns its path.

    Args:
      *folders: of runs or sweeps; or `Runs`.
      output: the folder of `report.html`; None: the only folder that was given.
      metric, against, contrasts: as for `Runs.contrasts`, whose `pairs` are `contrasts` here.
      title: of the page.
      axis, layers: what curves are drawn over, and the layer whose angles are drawn, until the reader chooses others.

    Raises:
      BadOption: if there is no run, or the page cannot be written.
    """
    from fa_jax.reports.html import write_report

    records = [record for runs in folders if isinstance(runs, Runs) for record in runs.records]
    paths = [path for path in folders if not isinstance(path, Runs)]
    records += find_runs(*_folders("report", paths)) if paths or not records else []
    if not records:
        raise BadOption(f"report: no run is recorded in {' or '.join(map(str, paths))}")
    if output is None and len(paths) != 1:
        raise BadOption("report: needs output=FOLDER unless it is of one folder")
    page = Path(paths[0] if output is None else output) / "report.html"
    options = figure_options(title=title, axis=axis, layers=layers)
    compared = comparison.compare(records, metric=metric, against=against, contrasts=contrasts)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_report(compared, page, options)
    except OSError as problem:
        raise BadOption(f"output={page.parent}: it cannot be written: {problem.strerror}") from None
    return page


def _job(record: Record, trusted: tuple[str, ...], given: Mapping[str, Given]) -> Job:
    origin = Origin(f"load({str(record.folder)!r}): its config.yaml", trusted, from_python=True)
    job = build_recorded(origin, record.config, given)
    if changed := own_changes(record.config, record.environment):
        text = f"since {record.folder} was trained, {', '.join(changed)}, so it may compute something else"
        warnings.warn(text, stacklevel=5)
    return job


def _folders(verb: str, folders: Sequence[str | Path]) -> list[Path]:
    if not folders:
        raise BadOption(f'{verb} needs the folder of a run or a sweep, such as "outputs"')
    for folder in folders:
        if not is_folder(folder):
            raise BadOption(f"{verb}: {folder} is no folder")
    return [Path(folder) for folder in folders]
