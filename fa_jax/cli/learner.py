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
LOST = {"rank": None, "shared": False}
"""Options of drawn feedback that it loses when it learns, and their values without effect."""
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
    predicting = rule.extras.network or network
    _check_batch_size(predicting, training.batch_size)
    if config.get("frozen") is not None:
        rule = freeze_named(rule, config["frozen"], predicting.statistics_paths)
    for measure in training.measures:
        measure.check(predicting)
    optimizer = _tried(config, "optimizer", params, steps)
    optimizer = optimizers.with_fixed(optimizer, predicting.statistics_paths)
    if rule.extras.learning_rate_multipliers is not None:
        optimizer = optimizers.with_multipliers(optimizer, rule.extras.learning_rate_multipliers)
    optimizer = optimizers.keep_removed(optimizer) if network.is_sparse else optimizer
    return Learner(rule, predicting, loss, training, optimizer, _feedback_optimizer(config, rule, feedback, steps))


def _check_batch_size(network: Network, batch_size: int) -> None:
    """Raises `BadOption` if normalisation over the batch would leave nothing of a single example.

    Over the positions of an image as well, it leaves something; of a network without marked layers it is not known.
    """
    shapes = [hidden.shape for hidden in network.hidden_shapes.values()]
    if batch_size == 1 and network.statistics_paths and shapes and all(len(shape) == 1 for shape in shapes):
        raise BadOption("must be at least 2: normalised over a batch of one example, every unit is 0", "batch_size")


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
        clips=optimizers.clips(learner.feedback_optimizer),
        params_clip=optimizers.clips(learner.optimizer),
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


def _feedback_optimizer(config: Config, rule: Rule, feedback: PyTree, steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of learned feedback: its own, or else that of the params.

    Raises:
      BadOption: if the feedback does not learn, or would not keep what it was drawn with.
    """
    name = "optimizer" if config["feedback_optimizer"] is None else "feedback_optimizer"
    if rule.learn is None:
        if name == "feedback_optimizer":
            raise BadOption("must be null: the feedback of this rule does not learn", "feedback_optimizer")
        return optax.identity()
    optimizer = optimizers.with_fixed(_tried(config, name, feedback, steps), rule.extras.fixed_feedback)
    drawn = config.get("feedback") or {}
    for option, without in LOST.items():
        if drawn.get(option, without) != without:
            reason = f"must be {json.dumps(without)}: this feedback learns, and would not keep it"
            raise BadOption(reason, f"feedback.{option}", complete=True)
    densities = drawn.get("density", 1.0)
    is_sparse = any(is_on(1 - density) for density in (densities if isinstance(densities, list) else [densities]))
    return optimizers.keep_removed(optimizer, lambda path: True) if is_sparse else optimizer


def _tried(config: Config, name: str, shapes: PyTree, steps: int) -> optax.GradientTransformation:
    """Returns an optimizer for a number of steps, tried on shapes: Optax notices mistakes late."""
    try:
        optimizer = factory(config, name)()(steps)
        jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), shapes)
    except BadOption as problem:
        raise problem.within(name) from None
    except (TypeError, ValueError, AttributeError) as problem:
        values = " ".join(f"{name}.{key}={value}" for key, value in options(config[name]).items() if key[-1] != "_")
        reason = str(problem).strip().partition("\n")[0]
        raise BadOption(f"{values}: {reason}", complete=True) from problem
    return optimizer
