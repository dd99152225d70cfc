"""From a config to the `Learner`: the network, the rule, the loss and the optimizers that it names."""

import contextlib
import copy
import functools
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import hydra.utils
import jax
import optax
from hydra.errors import InstantiationException

from fa_jax import optimizers
from fa_jax.checks import BadOption, integer, is_on, number, switch
from fa_jax.cli.own import check_importable, users_exceptions
from fa_jax.core import FeedbackOptimizer, PyTree, Rule, Task
from fa_jax.network import Network
from fa_jax.records.options import options
from fa_jax.records.sources import own_packages
from fa_jax.rules.freezing import freeze_named
from fa_jax.tasks.augmentation import augmentation
from fa_jax.training.loop import Learner, Numbers, TrainingOptions

Config = dict[str, Any]
GROUP_KEYS = ("task", "architecture", "rule", "loss", "optimizer", "logger")


def make_learner(config: Config, task: Task, steps: int) -> Learner:
    """Returns the learner of a config, in which numbers may be traced, for a task and a number of steps."""
    training = training_options(config)._replace(augment=_augmentation(config["augmentation"], task))
    loss = factory(config, "loss")()
    network = _network(config, task)
    rule = factory(config, "rule")(network, loss.value, **_init_feedback(config))
    choice, target = choice_of(config, "rule"), config["rule"]["_target_"]
    if not isinstance(rule, Rule):
        reason = f"must be a function that returns a fa_jax.core.Rule; got {type(rule).__name__}"
        raise BadOption(reason, f"rule={choice}")
    with within("rule", choice), users_exceptions(f"rule={choice}", target):
        params, feedback = jax.eval_shape(rule.init, jax.random.key(0))
    rule = freeze_named(rule, config["frozen"]) if config.get("frozen") is not None else rule
    network = rule.extras.network or network
    for measure in training.measures:
        measure.check(network)
    optimizer = _optimizer(config, rule, network.statistics_paths, params, steps)
    return Learner(rule, network, loss, training, optimizer, _feedback_optimizer(config, rule, feedback, steps))


def _network(config: Config, task: Task) -> Network:
    """Returns the network of a config; jobs with the same architecture share it, and what is traced of it."""
    chosen = {"architecture": config["architecture"], "choices": {"architecture": choice_of(config, "architecture")}}
    try:
        text = None if own_packages(config["architecture"]) else json.dumps(chosen)
    except TypeError:  # a number is traced, or the architecture is a Python object
        text = None
    if text is None:
        return factory(config, "architecture")(task.input_shape, task.outputs)
    return _network_of(text, task.input_shape, task.outputs)


@functools.lru_cache(maxsize=4)
def _network_of(text: str, input_shape: tuple[int, ...], outputs: int) -> Network:
    return factory(json.loads(text), "architecture")(input_shape, outputs)


def training_options(config: Config) -> TrainingOptions:
    """Returns the options of training and of evaluation, without the augmentation, which needs the task."""
    measures = config.get("measure") or {}
    return TrainingOptions(
        batch_size=integer("batch_size", config["batch_size"], least=1),
        shuffle=switch("shuffle", config["shuffle"]),
        probe_size=integer("probe", config["probe"], least=0),
        adversarial=number("adversarial", config["adversarial"], least=0),
        measures=tuple(factory(config, f"measure.{name}", measure)() for name, measure in measures.items()),
    )


def replaced(config: Config, numbers: Numbers) -> Config:
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


def check_feedback_optimizer(config: Config, learner: Learner, steps: int) -> None:
    """Raises `BadOption` if the feedback would not learn as the rule says."""
    check = learner.rule.extras.check_feedback_optimizer
    if check is None:
        return
    name = "optimizer" if config["feedback_optimizer"] is None else "feedback_optimizer"
    node = config[name]
    chosen = FeedbackOptimizer(
        shared=name == "optimizer",
        scaling=node.get("scaling", {}).get("_target_", ""),
        weight_decay=node.get("weight_decay", 0.0),
        clip=node.get("clip"),
        is_plain=optimizers.is_plain(learner.feedback_optimizer, steps),
    )
    with within(name, config.get("choices", {}).get(name)):
        check(chosen)


def choice_of(config: Config, group: str) -> str | None:
    """Returns the choice of a config group, or else the name of the function that it calls."""
    chosen = config.get("choices", {}).get(group)
    return chosen or str(config[group]["_target_"]).rpartition(".")[2]


@contextlib.contextmanager
def within(group: str, choice: str | None = None) -> Iterator[None]:
    """Names the group in every mistake of its options."""
    try:
        yield
    except BadOption as problem:
        raise problem.within(group, choice) from None


def factory(config: Config, name: str, node: Any = None) -> Callable[..., Any]:
    """Returns the factory of a config node with its options bound; its mistakes become a `BadOption` with its name."""
    node = config[name] if node is None else node
    target = node.get("_target_") if isinstance(node, dict) else None
    if not (isinstance(target, str) or callable(target)):
        raise BadOption(f"must be chosen by name, or have a _target_; got {node!r}", name)
    choice = choice_of(config, name) if name in GROUP_KEYS else None
    try:
        if isinstance(target, str):
            check_importable(name, target)
            bound = cast(functools.partial, hydra.utils.instantiate(node, _convert_="all", _partial_=True))
        else:  # a Python object that was given
            bound = functools.partial(target)
    except InstantiationException as problem:
        cause = problem.__cause__
        if isinstance(cause, BadOption):
            raise cause.within(name, choice) from None
        raise BadOption(f"{name}: {str(cause or problem).partition(chr(10))[0]}", complete=True) from problem

    def call(*arguments: Any, **options: Any) -> Any:
        try:
            inspect.signature(bound.func).bind(*bound.args, *arguments, **bound.keywords, **options)
        except TypeError as problem:
            raise BadOption(f"{name}: {problem}", complete=True) from None
        with within(name, choice), users_exceptions(name, target):
            return bound(*arguments, **options)

    return call


def _init_feedback(config: Config) -> dict[str, Callable]:
    """Returns the keyword argument with which a rule draws its feedback, if it has any."""
    draws = _parameters_of(config["rule"]["_target_"]).get("init_feedback")
    if config.get("feedback") is None:
        if draws is not None and draws.default is draws.empty and "init_feedback" not in config["rule"]:
            reason = "draws feedback, so it needs a choice of it, such as feedback=layerwise or feedback=direct"
            raise BadOption(reason, f"rule={choice_of(config, 'rule')}")
        return {}
    if draws is None:
        chosen = config.get("choices", {}).get("feedback") or config["feedback"]
        raise BadOption(f"has no feedback to initialise; got feedback={chosen}", f"rule={choice_of(config, 'rule')}")
    return {"init_feedback": factory(config, "feedback")}


def _parameters_of(target: str | Callable) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(hydra.utils.get_method(target) if isinstance(target, str) else target).parameters


def _augmentation(options: Any, task: Task) -> Callable | None:
    if not isinstance(options, dict) or set(options) != {"shift", "border", "flip", "contrast"}:
        raise BadOption(
            f"must have shift, border, flip and contrast, as in augmentation.shift=2; got {options!r}", "augmentation"
        )
    with within("augmentation"):
        return augmentation(task, **options)


def _optimizer(config: Config, rule: Rule, statistics, params: PyTree, steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of the params; connections that a sparse architecture removed stay removed."""
    density = config["architecture"].get("density", 1.0)
    densities = density if isinstance(density, list) else [density]
    pruning = [optimizers.keep_removed()] if any(is_on(1 - value) for value in densities) else []
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
        optimizer = factory(config, name)()(steps, fixed)
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
