"""From a resolved config to everything a run needs, with every option checked before anything is compiled."""

import dataclasses
import functools
import inspect
import re
from typing import Any, cast

import hydra.utils
import jax
import numpy as np
import optax
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from fa_jax import optimizers
from fa_jax.checks import BadOption, choose, integer, number, switch
from fa_jax.core import Loss, PyTree, Rule, Task
from fa_jax.loggers.logger import Opener
from fa_jax.network import Network
from fa_jax.tasks.augmentation import augmentation
from fa_jax.training import distributed as processes
from fa_jax.training.loop import Training

SPACINGS = {
    "linear": lambda steps, n: np.linspace(steps / n, steps, n),
    "log": lambda steps, n: np.geomspace(max(steps / 1000, 1), steps, n),
}
"""Where to evaluate: `(steps, evaluations) -> steps`, the last included; log over the last three decades."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What one run trains, and how."""

    task: Task
    network: Network
    loss: Loss
    rule: Rule
    optimizer: optax.GradientTransformation
    feedback_optimizer: optax.GradientTransformation
    training: Training
    groups: tuple[tuple[int, ...], ...]
    """The seeds, in groups that are trained at once."""
    evaluations: tuple[int, ...]
    """Steps after which the network is evaluated, from 0 to the last."""
    devices: tuple[jax.Device, ...]
    """Those that may share a group of seeds."""
    batch_devices: int
    """How many of them train a seed together."""
    checkpoint: bool
    """Whether params and feedback are kept at the end."""
    checkpoint_every: float | None
    """Seconds between checkpoints to resume from; None: none are made."""
    tracker: Opener | None
    """Opens the tracker that the run is sent to besides; None: there is none."""


def build(config: dict[str, Any]) -> Job:
    """Returns the job that a config asks for.

    Args:
      config: the resolved config as plain containers, without the `hydra` node.

    Raises:
      BadOption: if anything in it is wrong.
    """
    try:
        return _build(OmegaConf.to_yaml(OmegaConf.create(config)))
    except KeyError as problem:
        missing = problem.args[0]
        if missing in config:
            raise
        raise BadOption(f"{missing} is missing from the config; it may be changed, but not removed") from None


@functools.lru_cache(maxsize=1)
def _build(text: str) -> Job:
    config = _containers(text)
    groups = _groups(config)
    evaluations = integer("evaluations", config["evaluations"], least=1)
    spacing = choose("spacing", config["spacing"], SPACINGS)
    batch_size = integer("batch_size", config["batch_size"], least=1)
    epochs = number("epochs", config["epochs"], above=0)
    training = Training(
        batch_size=batch_size,
        shuffle=switch("shuffle", config["shuffle"]),
        probe=integer("probe", config["probe"], least=0),
        adversarial=number("adversarial", config["adversarial"], least=0),
        measures=tuple(_make("measures", measure) for measure in _list("measures", config["measures"])),
    )
    devices, every = _devices(config["devices"]), config["checkpoint_every"]
    batch_devices = _batch_devices(config["batch_devices"], len(devices), batch_size)
    for group in groups:
        processes.shared_out(devices, len(group), batch_devices)  # or else it says why not

    task = _make_task(OmegaConf.to_yaml(OmegaConf.create(config["task"])))
    change = config["augmentation"]
    if not isinstance(change, dict) or set(change) != {"shift", "flip", "contrast"}:
        raise BadOption(f"augmentation must have shift, flip and contrast, as in augmentation.shift=2; got {change!r}")
    training = training._replace(augment=augmentation(task.input_shape, **change))
    examples = len(task.train.inputs)
    if batch_size > examples:
        raise BadOption(f"batch_size must be at most the number of training examples, {examples}; got {batch_size}")
    loss = _make("loss", config["loss"])
    if loss.probabilities and not _are_probabilities(task):
        name = config["loss"]["_target_"].rpartition(".")[2]
        raise BadOption(f"loss={name} needs targets from 0 to 1, which this task's are not; use loss=squared_error")
    network = _call("architecture", _make("architecture", config["architecture"]), task.input_shape, task.outputs)
    rule = _call("rule", _make("rule", config["rule"]), network, loss.value)
    if rule.needs_classes and not _are_one_hot(task):
        name = config["rule"]["_target_"].rpartition(".")[2]
        raise BadOption(f"rule={name} needs a task with classes, such as task=digits; the targets of this one are none")
    steps = max(1, round(epochs * (examples // batch_size)))
    if steps >= 2**31:
        raise BadOption(f"epochs must come to less than 2^31 steps; got {epochs:g}, which is {steps} steps")
    return Job(
        task,
        rule.network or network,
        loss,
        rule,
        _optimizer(config, rule, steps),
        _feedback_optimizer(config, rule, steps),
        training,
        groups,
        tuple(np.unique([0, *np.round(spacing(steps, evaluations)).astype(int)]).tolist()),
        devices,
        batch_devices,
        switch("checkpoint", config["checkpoint"]),
        None if every is None else number("checkpoint_every", every, least=0),
        None if config.get("logger") is None else _make("logger", config["logger"]),
    )


def _are_probabilities(task: Task) -> bool:
    targets = task.encode(task.train.targets[:1000])
    return bool((targets.min() >= 0) & (targets.max() <= 1))


def _are_one_hot(task: Task) -> bool:
    targets = task.encode(task.train.targets[:1000])
    return bool(((targets == 0) | (targets == 1)).all() & (targets.sum(-1) == 1).all())


@functools.lru_cache(maxsize=2)
def _make_task(text: str) -> Task:
    """Tasks are kept from one job of a sweep to the next, so that data is read once."""
    return _make("task", _containers(text))


def _containers(text: str) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(text)))


def _make(option: str, config: dict[str, Any]) -> Any:
    """Instantiates a config node; its mistakes, and no other errors, become a `BadOption`."""
    if not isinstance(config, dict) or "_target_" not in config:
        raise BadOption(f"{option} must name what there is to be made, by a choice or by _target_; got {config!r}")
    try:
        return hydra.utils.instantiate(config, _convert_="all")
    except InstantiationException as problem:
        cause = problem.__cause__
        if isinstance(cause, BadOption):
            raise cause from None
        if isinstance(cause, TypeError):
            raise BadOption(f"{option}: {cause}") from problem
        raise


def _call(option: str, factory: functools.partial, *arguments: Any) -> Any:
    """Calls what a `_partial_` node made; an option that it does not know, or misses, becomes a `BadOption`."""
    try:
        inspect.signature(factory.func).bind(*arguments, **factory.keywords)
        return factory(*arguments)
    except TypeError as problem:
        # Some hand their options on, and it is the function below them that does not know one, or misses it.
        found = re.search(r"(got an unexpected keyword argument|missing .*required).*", str(problem))
        if found is None:
            raise
        raise BadOption(f"{option}: {found[0]}") from None


def _optimizer(config: dict[str, Any], rule: Rule, steps: int) -> optax.GradientTransformation:
    """The optimizer of the params, which keeps removed connections removed."""
    kept = config["architecture"].get("kept", 1.0)
    fractions = kept if isinstance(kept, list) else [kept]
    pruning = [optimizers.keep_removed()] if any(fraction < 1 for fraction in fractions) else []
    params, _ = jax.eval_shape(rule.init, jax.random.key(0))
    return _tried("optimizer", config["optimizer"], params, steps, *pruning, rates=rule.rates)


def _feedback_optimizer(config: dict[str, Any], rule: Rule, steps: int) -> optax.GradientTransformation:
    """The optimizer of learned feedback: its own, or else that of the params."""
    option = "optimizer" if config["feedback_optimizer"] is None else "feedback_optimizer"
    if rule.learn is None:
        if option == "feedback_optimizer":
            raise BadOption("feedback_optimizer must be null, since this rule's feedback does not learn")
        return optax.identity()
    _, feedback = jax.eval_shape(rule.init, jax.random.key(0))
    return _tried(option, config[option], feedback, steps)


def _tried(
    option: str, config: dict[str, Any], shapes: PyTree, steps: int, *further: optax.GradientTransformation, rates=None
) -> optax.GradientTransformation:
    """An optimizer for a run of so many steps, tried on shapes, since Optax finds out late what is wrong with it."""
    try:
        own = _make(option, config)(steps)
        optimizer = optax.chain(own if rates is None else optimizers.at_rates(own, rates, shapes), *further)
        jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), shapes)
    except BadOption as problem:
        raise BadOption(str(problem).replace("optimizer.", f"{option}.", 1)) from None
    except (TypeError, ValueError, AttributeError) as problem:
        raise BadOption(f"{option}: {str(problem).strip().partition(chr(10))[0]}") from problem
    return optimizer


def _list(option: str, got: Any) -> list[Any]:
    if not isinstance(got, list):
        raise BadOption(f"{option} must be a list; got {got!r}")
    return got


def _groups(config: dict[str, Any]) -> tuple[tuple[int, ...], ...]:
    seed, seeds = integer("seed", config["seed"], least=0), config["seeds"]
    if isinstance(seeds, list):
        chosen = [integer("seeds", one, least=0) for one in seeds]
        if not chosen or len(set(chosen)) < len(chosen):
            raise BadOption(
                f"seeds must be a number of seeds or a list of different ones, such as [3,5,8]; got {seeds}"
            )
    else:
        chosen = range(seed, seed + integer("seeds", seeds, least=1))
    if max(chosen) >= 2**31:
        raise BadOption(f"seed and seeds must stay below 2^31; got {max(chosen)}")
    at_once = config["seeds_per_batch"]
    at_once = len(chosen) if at_once is None else integer("seeds_per_batch", at_once, least=1)
    return tuple(tuple(chosen[i : i + at_once]) for i in range(0, len(chosen), at_once))


def _devices(wanted: int | str) -> tuple[jax.Device, ...]:
    there = jax.devices()
    if wanted == "all":
        return tuple(there)
    if isinstance(wanted, bool) or not isinstance(wanted, int):
        raise BadOption(f"devices must be all, or how many; got {wanted!r}")
    if processes.several():
        raise BadOption(f"devices is for one process; several use all that they have, {len(there)} here; got {wanted}")
    if integer("devices", wanted, least=1) > len(there):
        raise BadOption(f"devices must be at most the number of devices there are, {len(there)}; got {wanted}")
    return tuple(there[:wanted])


def _batch_devices(wanted: Any, there: int, batch_size: int) -> int:
    """How many devices train a seed together."""
    wanted = integer("batch_devices", wanted, least=1)
    if wanted > there:
        raise BadOption(f"batch_devices must be at most the number of devices that are used, {there}; got {wanted}")
    if batch_size % wanted:
        raise BadOption(f"batch_devices must divide batch_size, which is {batch_size}; got {wanted}")
    return wanted
