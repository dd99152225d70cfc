"""What Hydra, the disk and the config groups say of a mistake on the command line, as the one line of a `BadOption`."""

import contextlib
import errno
import itertools
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fa_jax.checks import BadOption, nearest
from fa_jax.cli import help as catalogue

ABBREVIATIONS = {"lr": "learning_rate", "wd": "weight_decay", "act": "activation", "std": "scale"}
"""Of options, as people of the field are used to."""
GROUPS = ("task", "architecture", "rule", "loss", "optimizer")


def plain(config: DictConfig) -> dict[str, Any]:
    """A config as plain containers, resolved."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def check_folder(option: str, folder: Path) -> None:
    """Refuses a folder that cannot be written to, or that holds another run or sweep."""
    if any((folder / occupied).exists() for occupied in ("status.json", "sweep.json")):
        raise BadOption(f"{option}={folder}: this folder already holds a run; choose another one")
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise BadOption(f"{option}={folder}: {there} is a file; choose a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise BadOption(f"{option}={folder}: {there} cannot be written to; choose another folder")
    if shutil.disk_usage(there).free < 2**20:
        raise BadOption(f"{option}={folder}: less than 1 MiB is free on the disk of {there}; choose another folder")


def check_tuned(choices: Mapping[str, str]) -> None:
    """Refuses `tuned=true` where nothing has been tuned; `choices` are the options of the config groups."""
    task, architecture, rule = (choices[group] for group in ("task", "architecture", "rule"))
    folder = catalogue.CONF / "recipe" / "tuned" / "true"
    if choices["tuned"] == "true" and not (folder / task / architecture / f"{rule}.yaml").exists():
        found = sorted("/".join(path.with_suffix("").relative_to(folder).parts) for path in folder.rglob("*.yaml"))
        there = ", ".join(found) or "none"
        raise BadOption(f"tuned=true: nothing has been tuned for {task}/{architecture}/{rule}; there is {there}")


@contextlib.contextmanager
def one_line_errors(words: Sequence[str]) -> Iterator[None]:
    """Turns Hydra's errors, and those of the disk, into `BadOption`s."""
    try:
        yield
    except MissingConfigException as problem:
        group, _, option = (problem.missing_cfg_file or "").rpartition("/")
        options = problem.options or []
        if not options:
            raise BadOption(first_line(problem)) from None
        valid = ", ".join(options)
        raise BadOption(f"{group} must be one of {valid}; got {option!r}{nearest(option, options)}") from None
    except (HydraException, OmegaConfBaseException) as problem:
        several = re.search(r"Ambiguous value for argument '([^']+)'", str(problem))
        if several:
            text = f"{several[1]} has several values; --multirun trains with each of them, and [a,b] is a list"
            raise BadOption(text) from None
        key = re.search(r"Could not override '([^']+)'", str(problem))
        if isinstance(problem, ConfigCompositionException) and key:
            raise BadOption(_no_such_option(key[1].partition("@")[0], words)) from None
        raise BadOption(first_line(problem)) from None
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EDQUOT):
            raise
        raise BadOption(f"hydra.run.dir: cannot write {problem.filename or 'the run'}: {problem.strerror}") from problem


def first_line(problem: Exception) -> str:
    """What an error of Hydra's says, without the pointer to its manual."""
    return re.sub(r"\s+", " ", str(problem).partition("\nSee https")[0]).strip()


def _no_such_option(name: str, words: Sequence[str]) -> str:
    """Says that a name is no option, with which choices of its group, and what it may have been meant for."""
    groups = [word.partition("=") for word in words if word.partition("=")[0] in GROUPS]
    where, there = "here", list(GROUPS)
    with contextlib.suppress(HydraException), hydra.initialize_config_dir(str(catalogue.CONF), version_base="1.3"):
        for chosen in itertools.product(*(values.split(",") for _, _, values in groups)):
            choices = {group: value for (group, _, _), value in zip(groups, chosen, strict=True)}
            names = list(_names(plain(hydra.compose("config", [f"{g}={v}" for g, v in choices.items()]))))
            if name not in names:
                own = name.partition(".")[0]
                where, there = f"with {own}={choices[own]}" if own in choices else "here", [*GROUPS, *names]
                break
    kin = [option for option in there if "." in name and option.startswith(name.rpartition(".")[0] + ".")]
    spelt_out = f"{name.rpartition('.')[0]}.{ABBREVIATIONS.get(name.rpartition('.')[2])}"
    near = nearest(spelt_out if spelt_out in kin else name, kin) or nearest(name, there)
    meant = near or (f"; valid: {', '.join(kin)}" if kin else "")
    return f"{name} is no option {where}{meant}"


def _names(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of the values in a config."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")
        elif key not in ("_target_", "_partial_"):
            yield prefix + key
