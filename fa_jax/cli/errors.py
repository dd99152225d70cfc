"""The errors of Hydra and of the disk, as the one line of a `BadOption`."""

import contextlib
import difflib
import errno
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fa_jax.checks import FOLDERS, BadOption, nearest
from fa_jax.cli.given import OBJECT
from fa_jax.cli.groups import LISTED, choices
from fa_jax.records.files import is_temporary

SYNONYMS = {"lr": "learning_rate", "wd": "weight_decay", "act": "activation", "std": "scale"}
"""Common abbreviations of options in the field."""
MANY = 20
"""Above this many choices, a message names only the nearest."""
LONGEST_NAME = 255
"""The most bytes of the name of a folder, in the usual file systems."""
LONGEST_PATH = 3800
"""The most bytes of a path, which leaves room for the files below it (4096 on Linux)."""
LAUNCHERS = ("joblib", "submitit_local", "submitit_slurm")
"""The launchers of Hydra's plugins."""
DISK_ERRORS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EDQUOT)
DISK_ERRORS += (errno.EMFILE, errno.ENFILE, errno.EISDIR)  # too many open files, a folder in place of a file


def check_vacant(option: str, folder: Path) -> None:
    """Checks that a folder holds nothing that a new run or sweep would replace.

    Raises:
      BadOption: if it holds another one, or other files.
    """
    if any((folder / marker).exists() for marker in ("status.json", "sweep.json")):
        raise BadOption(f"{option}={folder}: this folder already holds a run; choose another one")
    if folder.is_dir() and (others := sorted(path.name for path in folder.iterdir() if not _is_unstarted(path))):
        raise BadOption(f"{option}={folder}: this folder holds other files, such as {others[0]}; choose an empty one")


def check_writable(option: str, folder: Path) -> None:
    """Checks that a folder, which may be missing, can be written to.

    Raises:
      BadOption: if its name is too long, it is a file, it may not be written to, or its disk is full.
    """
    check_names(option, folder)
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise BadOption(f"{option}={folder}: {existing} is a file; choose a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise BadOption(f"{option}={folder}: {existing} cannot be written to; choose another folder")
    if shutil.disk_usage(existing).free < 2**20:
        raise BadOption(f"{option}={folder}: less than 1 MiB is free on the disk of {existing}; choose another folder")


def _is_unstarted(path: Path) -> bool:
    """Returns whether a file may be left from a run that was killed before its first status."""
    if path.is_symlink() or not path.is_file():
        return False
    ours = path.name in ("config.yaml", "environment.json", "run.log", ".lock") or is_temporary(path.name)
    return ours or path.stat().st_size == 0


def check_names(option: str, folder: Path) -> None:
    """Checks that a file system can hold a folder of this name.

    Raises:
      BadOption: naming the part of it that is too long.
    """
    for name in folder.parts:
        if len(os.fsencode(name)) > LONGEST_NAME:
            got = f"{name[:20]}... of {len(os.fsencode(name))} bytes"
            raise BadOption(f"must be of names of at most {LONGEST_NAME} bytes; got {got}", option)
    if len(os.fsencode(folder.absolute())) > LONGEST_PATH:
        raise BadOption(f"must be a path of at most {LONGEST_PATH} bytes; got {len(os.fsencode(folder))}", option)


def check_folders_of_jobs(option: str, folders: Sequence[Path]) -> None:
    """Checks that each job of a sweep has a folder of its own.

    Raises:
      BadOption: if two of them have one folder, or a name is too long.
    """
    for folder in folders:
        check_names(option, folder)
    counts = Counter(map(os.path.normpath, folders))
    for folder, count in counts.items():
        if count > 1:
            raise BadOption(f"must differ from job to job, as with ${{hydra.job.num}}; {count} have {folder}", option)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns errors of Hydra, and of the disk, into `BadOption`."""
    try:
        yield
    except MissingConfigException as problem:
        raise _unknown_choice(problem) from None
    except (HydraException, OmegaConfBaseException) as problem:
        raise BadOption(first_line(problem)) from None
    except yaml.MarkedYAMLError as problem:  # in a folder of configs
        mark = problem.problem_mark
        place = f"{mark.name}, line {mark.line + 1}" if mark else "a config"
        raise BadOption(f"{place} is no YAML: {problem.problem}") from None
    except yaml.reader.ReaderError as problem:
        raise BadOption(f"{problem.name} is no YAML: {problem.reason}") from None
    except OSError as problem:
        if problem.errno not in DISK_ERRORS:
            raise
        raise BadOption(f"hydra.run.dir: cannot write {problem.filename or 'the run'}: {problem.strerror}") from problem


def check_own_options(names: Iterable[str], of_command: Iterable[str], of_runs: Iterable[str]) -> None:
    """Checks the names of options of which some are of a command or a function itself, and others of the config.

    Args:
      names: that were given.
      of_command: the options of the command or the function.
      of_runs: the options and groups at the root of the config.

    Raises:
      BadOption: if a name is in neither and near to one. Others, of which Hydra knows more, pass.
    """
    valid = [*of_command, *of_runs]
    for name in names:
        if name.isidentifier() and name not in valid and (hint := nearest(name, valid)):
            raise BadOption(f"{name} is no option{hint}")


def first_line(problem: Exception) -> str:
    """Returns the message of an error of Hydra without the link to its manual."""
    return re.sub(r"\s+", " ", str(problem).partition("\nSee https")[0]).strip()


def _unknown_choice(problem: MissingConfigException) -> BadOption:
    """Returns the mistake that a config group has no such choice, with the nearest."""
    missing = problem.missing_cfg_file or ""
    launcher = missing.removeprefix("hydra/launcher/")
    if launcher != missing and launcher in LAUNCHERS:
        plugin = f"hydra-{launcher.partition('_')[0]}-launcher"
        needs = f"needs {plugin}, which is not installed: pip install 'fa-jax[launchers]'"
        return BadOption(needs, "hydra/launcher")
    group = next((group for group in LISTED[::-1] if missing.startswith(f"{group}/")), missing.rpartition("/")[0])
    choice = missing.removeprefix(f"{group}/")
    # Hydra's options are not nested, and include configs of --config-dir.
    valid = list(dict.fromkeys([*choices(group), *(problem.options or ())]))
    if not group or not valid:
        return BadOption(first_line(problem))
    text = ", ".join(valid) if len(valid) <= MANY else f"those that fa-jax list {group} shows"
    return BadOption(f"must be one of {text}; got {choice!r}{nearest(choice, valid)}", group)


def _typed_name(key: str, overrides: Sequence[str]) -> str:
    """Returns the option that was typed, of which OmegaConf reports the first unknown part."""
    names = (override.lstrip("~+").partition("=")[0].partition("@")[0].replace("/", ".") for override in overrides)
    return next((name for name in names if name == key or name.startswith(f"{key}.")), key)


def unknown_option(
    problem: ConfigCompositionException, overrides: Sequence[str], others: Iterable[Sequence[str]] = ()
) -> BadOption | None:
    """Returns the mistake that there is no such option, with the choices of its group and the nearest option.

    Args:
      problem: that composing raised; for another one, there is no such mistake.
      overrides: that were composed, inside of `initialized`.
      others: those of the other runs of a sweep, whose rules may have an option that is near.
    """
    unknown = problem.__cause__
    if not isinstance(unknown, ConfigAttributeError | ConfigKeyError):
        return None
    name = _typed_name(str(unknown.full_key), overrides)
    if name in FOLDERS:
        return BadOption(f"{name} is no option; did you mean 'hydra.run.dir'? A sweep goes to hydra.sweep.dir")
    valid, chosen = list(LISTED), []
    paths = [override for override in overrides if override.startswith("hydra.searchpath=")]
    with contextlib.suppress(HydraException):
        for choices_of_run in dict.fromkeys(tuple(filter(is_choice, (*paths, *run))) for run in (overrides, *others)):
            config = hydra.compose("config", list(choices_of_run), return_hydra_config=True)
            chosen.append(dict(config.hydra.runtime.choices))
            valid += [option for option in _names(OmegaConf.to_container(config)) if not option.startswith("hydra.")]
    if name.startswith("feedback.") and chosen and not any(choice["feedback"] for choice in chosen):
        return BadOption(f"{name} is no option with rule={chosen[0]['rule']}, which has no feedback to initialise")
    if any(choice.get(name.partition(".")[0]) == OBJECT for choice in chosen):
        return BadOption(f"{name} is no option of a Python object, to which functools.partial gives its options")
    return BadOption(f"{name} is no option{_with_choice(name, chosen)}{suggestion(name, list(dict.fromkeys(valid)))}")


def is_choice(override: str) -> bool:
    """Returns whether an override chooses a config of a group, or says where configs are."""
    name = override.lstrip("+").partition("=")[0].partition("@")[0]
    return name in LISTED or name == "hydra.searchpath"


def _with_choice(name: str, chosen: Sequence[Mapping[str, str | None]]) -> str:
    """Returns the phrase that says with which choices of its group there is no such option."""
    groups = [group for group in LISTED if name.startswith(f"{group.replace('/', '.')}.")]
    values = (
        dict.fromkeys(choices_of_run[groups[-1]] for choices_of_run in chosen if choices_of_run.get(groups[-1]))
        if groups
        else {}
    )
    return f" with {groups[-1]}={' or '.join(map(str, values))}" if values else ""


def suggestion(name: str, valid: Sequence[str]) -> str:
    """Returns the option with the nearest last name, in the same group if possible; else the options of the group."""
    group, _, word = name.rpartition(".")
    word = SYNONYMS.get(word, word)
    groups = (f"{group}.", "feedback.") if group == "rule" else (f"{group}.",)
    siblings = [option for option in valid if group and option.startswith(groups)]
    for options, cutoff in ((siblings, 0.6), (valid, 0.8 if siblings else 0.6)):
        last_names = {option.rpartition(".")[2]: option for option in reversed(options)}
        containing = [last_name for last_name in last_names if word in last_name.split("_")]
        exact = [word] if word in last_names else []
        close = [*exact, *containing, *difflib.get_close_matches(word, last_names, cutoff=cutoff)]
        if close:
            return f"; did you mean {last_names[close[0]]!r}?"
    return f"; valid: {', '.join(siblings)}" if siblings else ""


def _names(config: Any, prefix: str = "") -> Iterator[str]:
    """Yields the dotted names of the values in a config."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")
        elif key not in ("_target_", "_partial_"):
            yield prefix + key
