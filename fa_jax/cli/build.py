"""From a resolved config to a `Job`, with every option checked before anything is compiled."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from omegaconf import OmegaConf

from fa_jax.checks import BadOption, choose, integer, number, sequence, switch
from fa_jax.cli.errors import suggestion
from fa_jax.cli.given import Given, check_given, with_factories
from fa_jax.cli.learner import (
    Config,
    check_feedback_optimizer,
    choice_of,
    factory,
    make_learner,
    replaced,
    training_options,
)
from fa_jax.cli.own import check_rule, is_own, users_exceptions
from fa_jax.cli.trust import Origin, check_config
from fa_jax.core import Task
from fa_jax.records.options import options
from fa_jax.reports.looks import is_colour
from fa_jax.training import distributed
from fa_jax.training.job import Job

MISSING = "???"
"""Stands in a config for an option that has no default."""
MOST_SEEDS = 10**6
"""The most seeds of a run."""
PRNG = "threefry2x32"
"""The random number generator of JAX whose numbers do not depend on how many seeds are vmapped."""
SPACINGS = {
    "linear": lambda steps, n: np.linspace(steps / n, steps, n),
    "log": lambda steps, n: np.geomspace(steps, max(steps / 1000, 1), n),
}
"""`(steps, evaluations) -> steps of the evaluations`, the last included; log: over the last three decades."""
REQUIRED = ("task", "architecture", "rule", "loss", "optimizer", "feedback_optimizer", "augmentation", "tuned", "probe")
REQUIRED += ("seed", "seeds", "seeds_per_batch", "epochs", "batch_size", "shuffle", "adversarial", "evaluations")
REQUIRED += ("spacing", "checkpoint", "checkpoint_every", "devices", "batch_devices")
OPTIONAL = ("feedback", "measure", "logger", "choices", "display", "frozen")


def build(
    config: Config,
    origin: Origin | None = Origin(),  # noqa: B008, a NamedTuple
    given: Mapping[str, Given] | None = None,
) -> Job:
    """Returns the job of a config.

    Args:
      config: resolved, as plain containers; `choices` of config groups are used in messages only.
      origin: where it comes from: it may call only trusted functions; None: the user typed it.
      given: Python objects, by the config group whose factory they replace.

    Raises:
      BadOption: if anything in it is wrong.
    """
    check_given(config, given or {})
    if origin is not None:
        check_config({name: node for name, node in config.items() if name not in (given or {})}, origin)
    _check_names(config)
    config = with_factories(config, given or {})
    generator = jax.config.jax_default_prng_impl  # type: ignore[attr-defined]
    if generator != PRNG:
        reason = f"must be {PRNG}, with which a seed does not depend on others; got {generator}"
        raise BadOption(reason, "JAX_DEFAULT_PRNG_IMPL")
    groups = _seed_groups(config)
    evaluations = integer("evaluations", config["evaluations"], least=1)
    spacing = choose("spacing", config["spacing"], SPACINGS)
    batch_size = integer("batch_size", config["batch_size"], least=1)
    epochs = number("epochs", config["epochs"], above=0)
    switch("tuned", config["tuned"])
    training_options(config)
    _check_display(config.get("display") or {})
    devices, interval = _devices(config["devices"]), config["checkpoint_every"]
    batch_devices = _batch_devices(config["batch_devices"], len(devices), batch_size)
    for group in groups:
        distributed.devices_for(devices, len(group), batch_devices)  # raises if they cannot be shared

    is_named = isinstance(config["task"]["_target_"], str)
    task = _task(OmegaConf.to_yaml(OmegaConf.create(config["task"]))) if is_named else factory(config, "task")()
    examples = len(task.train.inputs)
    if batch_size > examples:
        raise BadOption(f"must be at most the number of training examples, {examples}; got {batch_size}", "batch_size")
    steps = max(1, round(epochs * (examples // batch_size)))
    if steps >= 2**31:
        raise BadOption(f"must come to less than 2^31 steps; got {epochs:g}, which is {steps} steps", "epochs")
    loss = factory(config, "loss")()
    if loss.needs_probabilities and not _are_probabilities(task):
        name = choice_of(config, "loss")
        raise BadOption(f"loss={name} needs targets from 0 to 1, and this task has others; use loss=squared_error")
    learner = make_learner(config, task, steps)
    check_feedback_optimizer(config, learner, steps)
    choice, target = choice_of(config, "rule"), config["rule"]["_target_"]
    measures = dict(zip(config.get("measure") or {}, learner.training.measures, strict=True))
    needing = [f"rule={choice}"] if learner.rule.extras.needs_classes else []
    needing += [f"measure={name}" for name, measure in measures.items() if measure.needs_classes]
    if needing and not are_one_hot(task):
        raise BadOption(f"{needing[0]} needs a task with classes, such as task=digits")
    if measures and not learner.training.probe_size:
        raise BadOption(f"measure={','.join(measures)} needs probe examples on which it is measured; got probe=0")
    if is_own(target):
        with users_exceptions(f"rule={choice}", target):
            check_rule(learner.rule, f"rule={choice}", (batch_size, *task.input_shape), task.outputs)
    return Job(
        task=task,
        learner=learner,
        make_learner=lambda numbers: make_learner(replaced(config, numbers), task, steps),
        groups=groups,
        evaluations=tuple(np.unique([0, *np.round(spacing(steps, evaluations)).astype(int)]).tolist()),
        devices=devices,
        batch_devices=batch_devices,
        checkpoint=switch("checkpoint", config["checkpoint"]),
        checkpoint_every=None if interval is None else number("checkpoint_every", interval, least=0),
        open_logger=None if config.get("logger") is None else factory(config, "logger")(),
    )


def _check_names(config: Config) -> None:
    """Raises `BadOption` if an option is missing, unknown, or has no value."""
    for name in REQUIRED:
        if name not in config:
            raise BadOption(f"{name} is missing from the config; it may be changed, but not removed")
    for name in config:
        if name not in (*REQUIRED, *OPTIONAL):
            valid = [*REQUIRED, *OPTIONAL, *(key for key in options(config) if key.partition(".")[0] in REQUIRED)]
            raise BadOption(f"{name} is no option{suggestion(str(name), valid)}")
    for name, value in options(config).items():
        if value == MISSING:
            raise BadOption("must be given", name, complete=True)


def _check_display(display: Any) -> None:
    """Raises `BadOption` if a label or a colour is none."""
    if not isinstance(display, dict) or display.keys() - {"label", "colour"}:
        raise BadOption(f"must have label and colour; got {display!r}", "display")
    label, colour = display.get("label"), display.get("colour")
    if label is not None and not (isinstance(label, str) and label.strip()):
        raise BadOption(f"must be text, or null; got {label!r}", "display.label")
    if colour is not None and not is_colour(colour):
        raise BadOption(f"must be a colour such as '#CC3311', or null; got {colour!r}", "display.colour")


def build_recorded(origin: Origin, config: Config, given: Mapping[str, Given] | None = None) -> Job:
    """Returns the job of a recorded config, in which options may be missing or of any type.

    Args:
      origin: of the config: its name, for messages, and the packages whose functions it may call.
      config: as recorded.
      given: as for `build`.

    Raises:
      BadOption: if nothing can be built from it, or it calls what is not trusted.
    """
    unnamed: list[BadOption] = []
    try:
        check_given(config, given or {})
    except BadOption as missing:
        unnamed.append(missing)
    try:
        check_config({group: node for group, node in config.items() if group not in (given or {})}, origin)
    except BadOption as untrusted:
        raise BadOption("; and ".join(map(str, [*unnamed, untrusted]))) from None
    if unnamed:
        raise unnamed[0]
    try:
        return build(config, origin._replace(name="the config"), given)
    except BadOption as mistake:
        is_of_data = origin.from_python and "task" not in (given or {}) and (mistake.option or "").startswith("task")
        hint = "; if the data are elsewhere now, fa_jax.load(folder, task=...) takes them" if is_of_data else ""
        raise BadOption(f"{origin.name}: {mistake}{hint}") from None
    except Exception as problem:
        reason = f"{type(problem).__name__}: {problem}".partition("\n")[0]
        raise BadOption(f"{origin.name}: nothing can be built from it: {reason}") from None


@functools.lru_cache(maxsize=2)
def _task(text: str) -> Task:
    """Makes a task; kept from one job of a sweep to the next, so that data is read once."""
    node = OmegaConf.to_container(OmegaConf.create(text))
    return factory({"task": node}, "task")()


def _are_probabilities(task: Task) -> bool:
    targets = np.asarray(task.encode(task.train.targets[:1000]))
    return bool((targets.min() >= 0) & (targets.max() <= 1))


def are_one_hot(task: Task) -> bool:
    """Returns whether the targets of a task are classes."""
    targets = np.asarray(task.encode(task.train.targets[:1000]))
    return bool(((targets == 0) | (targets == 1)).all() & (targets.sum(-1) == 1).all())


def _seed_groups(config: Config) -> tuple[tuple[int, ...], ...]:
    first, seeds = integer("seed", config["seed"], least=0), config["seeds"]
    if isinstance(seeds, list):
        if first:
            raise BadOption(f"must be 0 with a list of seeds, which names them all; got {first}", "seed")
        chosen = [integer("seeds", seed, least=0) for seed in sequence("seeds", seeds, "[3,5,8]")]
        if not chosen or len(set(chosen)) < len(chosen):
            raise BadOption(f"must be a number or a list of different seeds, such as [3,5,8]; got {seeds}", "seeds")
    else:
        chosen = range(first, first + integer("seeds", seeds, least=1))
    if len(chosen) > MOST_SEEDS:
        raise BadOption(f"must be at most {MOST_SEEDS:,}; got {len(chosen):,}", "seeds")
    if max(chosen) >= 2**31:
        raise BadOption(f"seed and seeds must stay below 2^31; got {max(chosen)}")
    at_once = config["seeds_per_batch"]
    at_once = len(chosen) if at_once is None else integer("seeds_per_batch", at_once, least=1)
    return tuple(tuple(chosen[i : i + at_once]) for i in range(0, len(chosen), at_once))


def _devices(requested: Any) -> tuple[jax.Device, ...]:
    available = jax.devices()
    if requested == "all":
        return tuple(available)
    if isinstance(requested, bool) or not isinstance(requested, int):
        raise BadOption(f"must be all, or a number; got {requested!r}", "devices")
    if distributed.active():
        raise BadOption(f"must be all with several processes, which use every device; got {requested}", "devices")
    if integer("devices", requested, least=1) > len(available):
        raise BadOption(f"must be at most the number of devices, {len(available)}; got {requested}", "devices")
    return tuple(available[:requested])


def _batch_devices(requested: Any, available: int, batch_size: int) -> int:
    requested = integer("batch_devices", requested, least=1)
    if requested > available:
        raise BadOption(f"must be at most the number of devices in use, {available}; got {requested}", "batch_devices")
    if batch_size % requested:
        raise BadOption(f"must divide batch_size, which is {batch_size}; got {requested}", "batch_devices")
    return requested
