"""From a resolved config to a `Job`, with every option checked before anything is compiled."""

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import hydra.utils
import jax
import numpy as np
import optax
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from fa_jax import optimizers
from fa_jax.checks import BadOption, choose, integer, number, sequence, switch
from fa_jax.cli.errors import suggestion
from fa_jax.cli.given import Given, check_given, with_factories
from fa_jax.cli.own import check_importable, check_rule, is_own, users_exceptions
from fa_jax.cli.trust import Origin, check_config
from fa_jax.core import FeedbackOptimizer, PyTree, Rule, Task
from fa_jax.records.conditions import options
from fa_jax.tasks.augmentation import augmentation
from fa_jax.training import distributed
from fa_jax.training.job import Job
from fa_jax.training.loop import Learner, Numbers, Training

Config = dict[str, Any]
MISSING = "???"
"""Stands in a config for an option that has no default."""
PRNG = "threefry2x32"
"""The random number generator of JAX whose numbers do not depend on how many seeds are vmapped."""
SPACINGS = {
    "linear": lambda steps, n: np.linspace(steps / n, steps, n),
    "log": lambda steps, n: np.geomspace(max(steps / 1000, 1), steps, n),
}
"""`(steps, evaluations) -> steps of the evaluations`, the last included; log: over the last three decades."""
REQUIRED = ("task", "architecture", "rule", "loss", "optimizer", "feedback_optimizer", "augmentation", "tuned", "probe")
REQUIRED += ("seed", "seeds", "seeds_per_batch", "epochs", "batch_size", "shuffle", "adversarial", "evaluations")
REQUIRED += ("spacing", "checkpoint", "checkpoint_every", "devices", "batch_devices")
OPTIONAL = ("feedback", "measure", "logger", "choices")
GROUP_KEYS = ("task", "architecture", "rule", "loss", "optimizer", "logger")


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
    _training(config)
    devices, interval = _devices(config["devices"]), config["checkpoint_every"]
    batch_devices = _batch_devices(config["batch_devices"], len(devices), batch_size)
    for group in groups:
        distributed.devices_for(devices, len(group), batch_devices)  # raises if they cannot be shared

    is_named = isinstance(config["task"]["_target_"], str)
    task = _task(OmegaConf.to_yaml(OmegaConf.create(config["task"]))) if is_named else _make(config, "task")()
    examples = len(task.train.inputs)
    if batch_size > examples:
        raise BadOption(f"must be at most the number of training examples, {examples}; got {batch_size}", "batch_size")
    steps = max(1, round(epochs * (examples // batch_size)))
    if steps >= 2**31:
        raise BadOption(f"must come to less than 2^31 steps; got {epochs:g}, which is {steps} steps", "epochs")
    loss = _make(config, "loss")()
    if loss.needs_probabilities and not _are_probabilities(task):
        name = _choice(config, "loss")
        raise BadOption(f"loss={name} needs targets from 0 to 1, and this task has others; use loss=squared_error")
    learner = _learner(config, task, steps)
    _check_feedback_optimizer(config, learner, steps)
    choice, target = _choice(config, "rule"), config["rule"]["_target_"]
    if learner.rule.extras.needs_classes and not are_one_hot(task):
        raise BadOption(f"rule={choice} needs a task with classes, such as task=digits")
    if is_own(target):
        with users_exceptions(f"rule={choice}", target):
            check_rule(learner.rule, f"rule={choice}", (batch_size, *task.input_shape), task.outputs)
    return Job(
        task=task,
        learner=learner,
        learner_at=lambda numbers: _learner(_replaced(config, numbers), task, steps),
        groups=groups,
        evaluations=tuple(np.unique([0, *np.round(spacing(steps, evaluations)).astype(int)]).tolist()),
        devices=devices,
        batch_devices=batch_devices,
        checkpoint=switch("checkpoint", config["checkpoint"]),
        checkpoint_every=None if interval is None else number("checkpoint_every", interval, least=0),
        open_logger=None if config.get("logger") is None else _make(config, "logger")(),
    )


def _learner(config: Config, task: Task, steps: int) -> Learner:
    """Returns the learner of a config, in which numbers may be traced, for a task and a number of steps."""
    training = _training(config)._replace(augment=_augmentation(config["augmentation"], task))
    loss = _make(config, "loss")()
    network = _make(config, "architecture")(task.input_shape, task.outputs)
    rule = _make(config, "rule")(network, loss.value, **_init_feedback(config))
    choice, target = _choice(config, "rule"), config["rule"]["_target_"]
    if not isinstance(rule, Rule):
        reason = f"must be a function that returns a fa_jax.core.Rule; got {type(rule).__name__}"
        raise BadOption(reason, f"rule={choice}")
    with _within("rule", choice), users_exceptions(f"rule={choice}", target):
        params, feedback = jax.eval_shape(rule.init, jax.random.key(0))
    network = rule.extras.network or network
    optimizer = _optimizer(config, rule, network.statistics_paths, params, steps)
    return Learner(rule, network, loss, training, optimizer, _feedback_optimizer(config, rule, feedback, steps))


def _training(config: Config) -> Training:
    """Returns the options of training and of evaluation, without the augmentation, which needs the task."""
    measures = config.get("measure") or {}
    return Training(
        batch_size=integer("batch_size", config["batch_size"], least=1),
        shuffle=switch("shuffle", config["shuffle"]),
        probe_size=integer("probe", config["probe"], least=0),
        adversarial=number("adversarial", config["adversarial"], least=0),
        measures=tuple(_make(config, f"measure.{name}", measure)() for name, measure in measures.items()),
    )


def _replaced(config: Config, numbers: Numbers) -> Config:
    """Returns a config with other values of some options, by dotted name."""
    replaced = copy.copy(config)
    for name, value in numbers.items():
        *path, key = name.split(".")
        node = replaced
        for part in path:
            node[part] = copy.copy(node[part])
            node = node[part]
        node[key] = value
    return replaced


def _check_names(config: Config) -> None:
    """Raises `BadOption` if an option is missing, unknown, or has no value."""
    for name in REQUIRED:
        if name not in config:
            raise BadOption(f"{name} is missing from the config; it may be changed, but not removed")
    for name in config:
        if name not in (*REQUIRED, *OPTIONAL):
            raise BadOption(f"{name} is no option{suggestion(str(name), [*REQUIRED, *OPTIONAL, *options(config)])}")
    for name, value in options(config).items():
        if value == MISSING:
            raise BadOption("must be given", name, complete=True)


def build_recorded(name: str, config: Config, trusted: Sequence[str], given: Mapping[str, Given] | None = None) -> Job:
    """Returns the job of a recorded config, in which options may be missing or of any type.

    Args:
      name: of the config, for messages.
      config: as recorded.
      trusted: packages whose functions it may call.
      given: as for `build`.

    Raises:
      BadOption: if nothing can be built from it, or it calls what is not trusted.
    """
    check_given(config, given or {})
    check_config(
        {group: node for group, node in config.items() if group not in (given or {})}, Origin(name, tuple(trusted))
    )
    try:
        return build(config, Origin(trusted=tuple(trusted)), given)
    except BadOption as mistake:
        raise BadOption(f"{name}: {mistake}") from None
    except Exception as problem:
        reason = f"{type(problem).__name__}: {problem}".partition("\n")[0]
        raise BadOption(f"{name}: nothing can be built from it: {reason}") from None


def _choice(config: Config, group: str) -> str | None:
    """Returns the choice of a config group, or else the name of the function that it calls."""
    chosen = config.get("choices", {}).get(group)
    return chosen or str(config[group]["_target_"]).rpartition(".")[2]


@contextlib.contextmanager
def _within(group: str, choice: str | None = None) -> Iterator[None]:
    """Names the group in every mistake of its options."""
    try:
        yield
    except BadOption as problem:
        raise problem.within(group, choice) from None


def _make(config: Config, name: str, node: Any = None) -> Callable[..., Any]:
    """Returns the factory of a config node with its options bound; its mistakes become a `BadOption` with its name."""
    node = config[name] if node is None else node
    if not isinstance(node, dict) or "_target_" not in node:
        raise BadOption(f"must be chosen by name, or have a _target_; got {node!r}", name)
    choice = _choice(config, name) if name in GROUP_KEYS else None
    try:
        target = node["_target_"]
        if isinstance(target, str):
            check_importable(name, target)
            factory = cast(functools.partial, hydra.utils.instantiate(node, _convert_="all", _partial_=True))
        else:  # a Python object that was given
            factory = functools.partial(target)
    except InstantiationException as problem:
        cause = problem.__cause__
        if isinstance(cause, BadOption):
            raise cause.within(name, choice) from None
        raise BadOption(f"{name}: {str(cause or problem).partition(chr(10))[0]}", complete=True) from problem

    def call(*arguments: Any, **options: Any) -> Any:
        try:
            inspect.signature(factory.func).bind(*arguments, **factory.keywords, **options)
        except TypeError as problem:
            raise BadOption(f"{name}: {problem}", complete=True) from None
        with _within(name, choice), users_exceptions(name, node["_target_"]):
            return factory(*arguments, **options)

    return call


def _init_feedback(config: Config) -> dict[str, Callable]:
    """Returns the keyword argument with which a rule draws its feedback, if it has any."""
    draws = _parameters_of(config["rule"]["_target_"]).get("init_feedback")
    if config.get("feedback") is None:
        if draws is not None and draws.default is draws.empty and "init_feedback" not in config["rule"]:
            reason = "draws feedback, so it needs a choice of it, such as feedback=layerwise or feedback=direct"
            raise BadOption(reason, f"rule={_choice(config, 'rule')}")
        return {}
    if draws is None:
        chosen = config.get("choices", {}).get("feedback") or config["feedback"]
        raise BadOption(f"has no feedback to initialise; got feedback={chosen}", f"rule={_choice(config, 'rule')}")
    return {"init_feedback": _make(config, "feedback")}


def _parameters_of(target: str | Callable) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(hydra.utils.get_method(target) if isinstance(target, str) else target).parameters


@functools.lru_cache(maxsize=2)
def _task(text: str) -> Task:
    """Makes a task; kept from one job of a sweep to the next, so that data is read once."""
    node = OmegaConf.to_container(OmegaConf.create(text))
    return _make({"task": node}, "task")()


def _augmentation(options: Any, task: Task) -> Callable | None:
    if not isinstance(options, dict) or set(options) != {"shift", "border", "flip", "contrast"}:
        raise BadOption(
            f"must have shift, border, flip and contrast, as in augmentation.shift=2; got {options!r}", "augmentation"
        )
    with _within("augmentation"):
        return augmentation(task, **options)


def _are_probabilities(task: Task) -> bool:
    targets = task.encode(task.train.targets[:1000])
    return bool((targets.min() >= 0) & (targets.max() <= 1))


def are_one_hot(task: Task) -> bool:
    """Returns whether the targets of a task are classes."""
    targets = task.encode(task.train.targets[:1000])
    return bool(((targets == 0) | (targets == 1)).all() & (targets.sum(-1) == 1).all())


def _optimizer(config: Config, rule: Rule, statistics, params: PyTree, steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of the params; connections that a sparse architecture removed stay removed."""
    density = config["architecture"].get("density", 1.0)
    densities = density if isinstance(density, list) else [density]
    pruning = [optimizers.keep_removed()] if any(value < 1 for value in densities) else []
    rates = rule.extras.learning_rate_multipliers
    return _tried(config, "optimizer", params, steps, *pruning, fixed=statistics, rates=rates)


def _feedback_optimizer(config: Config, rule: Rule, feedback: PyTree, steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of learned feedback: its own, or else that of the params."""
    name = "optimizer" if config["feedback_optimizer"] is None else "feedback_optimizer"
    if rule.learn is None:
        if name == "feedback_optimizer":
            raise BadOption("must be null: the feedback of this rule does not learn", "feedback_optimizer")
        return optax.identity()
    return _tried(config, name, feedback, steps, fixed=rule.extras.fixed_feedback)


def _check_feedback_optimizer(config: Config, learner: Learner, steps: int) -> None:
    """Raises `BadOption` if the feedback would not learn as the rule says."""
    rule = learner.rule
    name = "optimizer" if config["feedback_optimizer"] is None else "feedback_optimizer"
    if rule.extras.sets_feedback and not optimizers.is_plain(learner.feedback_optimizer, steps):
        raise BadOption(
            f"must be sgd with learning_rate=1 for rule={_choice(config, 'rule')}, which sets its feedback itself: "
            "+optimizer@feedback_optimizer=sgd feedback_optimizer.learning_rate=1",
            "feedback_optimizer",
        )
    if rule.extras.check_feedback_optimizer is not None:
        node = config[name]
        scaling = node.get("scaling", {}).get("_target_", "")
        chosen = FeedbackOptimizer(name == "optimizer", scaling, node.get("weight_decay", 0.0), node.get("clip"))
        with _within(name, config.get("choices", {}).get(name)):
            rule.extras.check_feedback_optimizer(chosen)


def _tried(
    config: Config,
    name: str,
    shapes: PyTree,
    steps: int,
    *further: optax.GradientTransformation,
    fixed=frozenset(),
    rates=None,
) -> optax.GradientTransformation:
    """Returns an optimizer for a number of steps, tried on shapes: Optax notices mistakes late."""
    try:
        optimizer = _make(config, name)()(steps, fixed)
        optimizer = optimizer if rates is None else optimizers.with_multipliers(optimizer, rates)
        optimizer = optax.chain(optimizer, *further)
        jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), shapes)
    except BadOption as problem:
        raise problem.within(name) from None
    except (TypeError, ValueError, AttributeError) as problem:
        values = " ".join(f"{name}.{key}={value}" for key, value in options(config[name]).items() if key[-1] != "_")
        reason = str(problem).strip().partition("\n")[0]
        raise BadOption(f"{values}: {reason}", complete=True) from problem
    return optimizer


def _seed_groups(config: Config) -> tuple[tuple[int, ...], ...]:
    first, seeds = integer("seed", config["seed"], least=0), config["seeds"]
    if isinstance(seeds, list):
        chosen = [integer("seeds", seed, least=0) for seed in sequence("seeds", seeds, "[3,5,8]")]
        if not chosen or len(set(chosen)) < len(chosen):
            raise BadOption(f"must be a number or a list of different seeds, such as [3,5,8]; got {seeds}", "seeds")
    else:
        chosen = range(first, first + integer("seeds", seeds, least=1))
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
