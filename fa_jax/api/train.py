"""`fa_jax.train`: runs from Python, as the command line starts them."""

import dataclasses
import functools
import inspect
import itertools
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fa_jax.api.given_objects import arrays, given_object
from fa_jax.api.run import Run
from fa_jax.api.runs import Runs
from fa_jax.checks import BadOption, is_folder
from fa_jax.cli.arguments import MULTIRUN, Arguments, parse
from fa_jax.cli.build import OPTIONAL, REQUIRED, are_one_hot
from fa_jax.cli.compose import Composed, compose
from fa_jax.cli.errors import check_own_options, one_line_errors
from fa_jax.cli.given import ARGUMENTS, OBJECT, Given
from fa_jax.cli.groups import LISTED
from fa_jax.cli.overrides import quoted
from fa_jax.cli.rule_options import check_used
from fa_jax.cli.single import run_together_logged
from fa_jax.cli.start import new_folder
from fa_jax.cli.sweep import Record
from fa_jax.cli.together import alike
from fa_jax.core import Task
from fa_jax.records.files import write_json
from fa_jax.records.reader import SWEEP
from fa_jax.training.progress import Progress
from fa_jax.training.record import Request

__all__ = ["arrays", "train"]

GROUPS = {argument: group for group, argument in ARGUMENTS.items()}
"""The arguments of `train` that take names or objects, with their config groups."""
SWEPT = (*GROUPS.values(), "feedback")
"""The groups of which a list of choices trains each."""
UNQUOTED = re.compile(r"[\w./:@%+,\-*()\[\]{}~ ]*")
"""Text that an override can have without quotes."""


def train(
    task: Any = None,
    network: Any = None,
    rule: Any = None,
    loss: Any = None,
    optimizer: Any = None,
    seeds: int | Sequence[int] | None = None,
    *,
    overrides: Sequence[str] = (),
    record: bool = True,
    folder: str | Path | None = None,
    config_dir: str | Path | None = None,
    trust: Sequence[str] | str = (),
    progress: bool = True,
    **options: Any,
) -> Runs:
    """Trains one run, or one run for each combination of values, and returns them.

    Nothing is printed but a progress bar, in a terminal or a notebook.

    Args:
      task: a name, as on the command line; arrays `(x, y, x_test, y_test)`; a `Task`, as from `fa_jax.arrays`; or a
        list of names and tasks, each of which is trained.
      network: a name of an architecture; a Flax module, which maps inputs `[batch, ...]` to logits `[batch, outputs]`;
        a function `(input_shape, outputs) -> Network`; or a list.
      rule: a name; a function `(network, loss) -> Rule`; or a list. A function with an argument `init_feedback` needs
        `feedback="layerwise"`, or another choice.
      loss: a name, a `Loss`, or a function `(logits, targets) -> scalar`. None: that of the task; for a task given as
        an object, cross entropy of classes, and else the squared error.
      optimizer: a name, an Optax optimizer, or a list.
      seeds: their number, or a list of them.
      overrides: further arguments as on the command line, such as `["optimizer.learning_rate=0.1"]`. Values with commas
        train each of them.
      record: whether the runs are recorded in `outputs`, as by the command line.
      folder: where they are recorded instead.
      config_dir: a folder of your own configs.
      trust: packages whose functions these may call.
      progress: whether a progress bar is shown.
      **options: further options as on the command line, such as `epochs=5`.

    Returns:
      The runs, in the order of the combinations, the last argument varying fastest.

    Raises:
      BadOption: a `ValueError`, if an argument is wrong. Any other exception that a run raises is raised too; what was
        recorded stays.
    """
    if folder is not None and not record:
        raise BadOption("has no effect with record=False", "folder", complete=True)
    check_own_options(options, inspect.signature(train).parameters, (*LISTED, *REQUIRED, *OPTIONAL))
    values = {"task": task, "network": network, "rule": rule, "loss": loss, "optimizer": optimizer}
    words = [f"{name}={_text(name, value)}" for name, value in {"seeds": seeds, **options}.items() if value is not None]
    words += [f"{name}=null" for name, value in options.items() if value is None]
    arguments = parse([word for word in (*words, *map(str, overrides)) if word not in MULTIRUN])
    if arguments != Arguments(arguments.overrides, {}):
        raise BadOption(f"must be options of runs; got {' '.join(overrides)}", "overrides", complete=True)
    if config_dir is not None and not is_folder(config_dir):
        raise BadOption(f"must be a folder of configs; got {str(config_dir)!r}", "config_dir", complete=True)
    configs = None if config_dir is None else str(config_dir)
    trusted = trust if isinstance(trust, str) else ",".join(trust)
    with_trust = {"trust": trusted} if trusted else {}
    arguments = arguments._replace(config_dir=configs, options=with_trust, multirun=True, from_python=True)
    with one_line_errors():
        combinations = list(_combinations(values, arguments))
        chosen = {"hydra.run.dir": folder, "hydra.sweep.dir": folder} if folder is not None else {}
        rules = len(rule) if isinstance(rule, list) else 1
        runs = [run for combination in combinations for run in _compose(combination, chosen, further_rules=rules > 1)]
        check_used([run.composed for run in runs])
        for run in runs:
            _ = run.composed.job  # a mistake in any of them is found before one is trained
        show = functools.partial(Progress, bar=progress, plain_lines=False)
        if not record:
            with tempfile.TemporaryDirectory(prefix="fa_jax_") as temporary:
                return _train(runs, Path(temporary), show)
        is_sweep = len(runs) > 1
        option = "folder" if folder is not None else "hydra.sweep.dir" if is_sweep else "hydra.run.dir"
        with new_folder(option, runs[0].parent(is_sweep), is_typed=folder is not None) as parent:
            if is_sweep and not any(run.given for run in runs):
                sweep = Record(combinations[0].arguments.overrides, configs, len(runs))
                parent.mkdir(parents=True, exist_ok=True)
                write_json(parent / SWEEP, sweep._asdict())
            return _train(runs, parent, show)


class _Combination(NamedTuple):
    """Arguments with the objects that stand in them."""

    arguments: Arguments
    given: dict[str, Given]


class _New(NamedTuple):
    """A run to be trained."""

    composed: Composed
    given: dict[str, Given]
    sweep_folder: Path
    run_folder: Path
    command: list[str]

    def parent(self, is_sweep: bool) -> Path:
        """Returns the default folder of this run, or of the sweep that it is of."""
        return self.sweep_folder if is_sweep else self.run_folder


def _combinations(values: Mapping[str, Any], arguments: Arguments) -> Iterator[_Combination]:
    """Yields each combination of objects, with names in their arguments; without objects, one combination of all."""
    choices: list[list[tuple[str, Any]]] = []
    for argument, value in values.items():
        if value is None:
            continue
        group, several = GROUPS[argument], value if isinstance(value, list) else [value]
        if not several:
            raise BadOption("must have at least one entry; got []", argument, complete=True)
        names = [entry for entry in several if isinstance(entry, str)]
        things = [entry for entry in several if not isinstance(entry, str)]
        if not things:
            choices.append([(group, ",".join(names))])
        else:
            choices.append(
                [(group, entry if isinstance(entry, str) else given_object(group, entry)) for entry in several]
            )
    for combination in itertools.product(*choices):
        given = {group: value for group, value in combination if isinstance(value, Given)}
        words = [f"{group}={OBJECT if group in given else value}" for group, value in combination]
        if "task" in given and values["loss"] is None and not arguments.value_of("loss"):
            words.append(f"loss={_usual_loss(given['task'].make())}")
        yield _Combination(arguments._replace(overrides=[*words, *arguments.overrides]), given)


def _compose(combination: _Combination, chosen: Mapping[str, Any], *, further_rules: bool) -> list[_New]:
    arguments, given = combination
    folders = [f"{option}={_text(option, str(path))}" for option, path in chosen.items()]
    with_folders = arguments._replace(overrides=[*arguments.overrides, *folders])
    composition = compose(with_folders, given=given, further_rules=further_rules)
    if (launcher := composition.master.hydra.runtime.choices["hydra/launcher"]) != "basic":
        raise BadOption(
            "has no effect from Python, where runs are trained one after another", f"hydra/launcher={launcher}"
        )
    run_folder = Path(composition.master.hydra.run.dir)
    command = ["fa_jax.train", *arguments.overrides, *(f"{group}: {thing.name}" for group, thing in given.items())]
    return [_New(composed, given, composition.folder, run_folder, command) for composed in composition.runs]


def _train(runs: Sequence[_New], parent: Path, show: Any) -> Runs:
    """Trains runs in a folder, those that differ in numbers alone together."""
    requests = []
    for number, new in enumerate(runs):
        composed = new.composed
        name = f"{number}_{composed.choices['rule']}" if new.given else composed.folder
        folder = parent / name if len(runs) > 1 else parent
        requests.append(Request(composed.job, composed.config, folder, new.command))
    # Objects may differ although they are described alike, so only runs of the very same ones can be trained together.
    same: dict[tuple[int, ...], list[int]] = {}
    for i, new in enumerate(runs):
        same.setdefault(tuple(map(id, new.given.values())), []).append(i)
    for members in same.values():
        for indices, numbers in alike([runs[i].composed for i in members]):
            chosen = zip(indices, numbers, strict=True)
            together = [dataclasses.replace(requests[members[i]], numbers=of) for i, of in chosen]
            for outcome in run_together_logged(together, show):
                if isinstance(outcome, Exception):
                    raise outcome
    return Runs([Run.trained(request.folder, request.job) for request in requests])


def _usual_loss(task: Task) -> str:
    return "cross_entropy" if are_one_hot(task) else "squared_error"


def _text(name: str, value: Any) -> str:
    """Returns the value of an override as it is typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | range) or type(value).__module__ == "numpy":
        entries = [
            _text(name, entry) for entry in (value if isinstance(value, list | tuple | range) else value.tolist())
        ]
        return ",".join(entries) if name in SWEPT else f"[{','.join(entries)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}: {_text('', entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, int | float):
        return repr(value)
    if not isinstance(value, str | Path):
        raise BadOption(f"must be a number, text, or a list of them; got {type(value).__name__}", name, complete=True)
    text = str(value)
    return text if UNQUOTED.fullmatch(text) else quoted(text)
