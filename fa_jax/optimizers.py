"""Optimizers: Optax chains of clipping, weight decay, scaling and a scheduled learning rate."""

from collections.abc import Callable, Collection, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import optax

from fa_jax.checks import BadOption, is_on, number, switch
from fa_jax.core import FeedbackOptimizer, PyTree
from fa_jax.networks.reach import crossed

Path = tuple[str, ...]


def descend(
    scaling: optax.GradientTransformation,
    *,
    learning_rate: float,
    schedule: Callable[[float, int], optax.Schedule],
    weight_decay: float | list[tuple[float, float]],
    clip: float | None,
    decoupled: bool = False,
) -> Callable[[int], optax.GradientTransformation]:
    """Returns `(steps) -> optimizer`, for a run of a number of steps.

    Args:
      scaling: the transformation that names the optimizer: `optax.identity`, `optax.scale_by_adam`, ...
      learning_rate: the highest, above 0.
      schedule: `(learning_rate, steps) -> schedule`.
      weight_decay: a multiple of each param, biases included, that is added to its update before the scaling; so it is
        multiplied by the learning rate. Or pairs (fraction of the steps, decay from there on), the first at 0.
      clip: the norm of all updates together to which larger ones are scaled down; None: no limit. Decay, scaling and
        learning-rate multipliers come after it, so it does not depend on them.
      decoupled: whether the decay is added after the scaling, as in AdamW; it is multiplied by the learning rate still.
    """
    switch("decoupled", decoupled)
    rate = number("learning_rate", learning_rate, above=0)
    pairs = _decay_pairs(weight_decay)
    clipping = optax.identity() if clip is None else optax.clip_by_global_norm(number("clip", clip, above=0))

    def for_run(steps: int) -> optax.GradientTransformation:
        if len(pairs) > 1:
            starts = [round(start * steps) for start, _ in pairs[1:]]
            decay = optax.join_schedules([optax.constant_schedule(value) for _, value in pairs], starts)
            decaying = optax.inject_hyperparams(optax.add_decayed_weights)(weight_decay=decay)
        else:
            ((_, decay),) = pairs
            decaying = optax.add_decayed_weights(decay) if is_on(decay) else optax.identity()
        scaled = (scaling, decaying) if decoupled else (decaying, scaling)
        return optax.chain(clipping, *scaled, optax.scale_by_learning_rate(schedule(rate, steps)))

    return for_run


def _decay_pairs(weight_decay: float | list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns pairs (fraction of the steps, weight decay from there on), of which the first starts at 0."""
    if not isinstance(weight_decay, list):
        return [(0.0, number("weight_decay", weight_decay, least=0))]
    if not weight_decay or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in weight_decay):
        problem = f"must be a number, or pairs such as [[0,0.03],[0.1,0.0001]]; got {weight_decay!r}"
        raise BadOption(problem, "weight_decay")
    starts = [number("weight_decay", start, least=0, most=1) for start, _ in weight_decay]
    if starts[0] != 0 or starts != sorted(starts):
        raise BadOption(f"must have fractions of the run that rise from 0; got {starts}", "weight_decay")
    return [
        (start, number("weight_decay", decay, least=0)) for start, (_, decay) in zip(starts, weight_decay, strict=True)
    ]


def with_multipliers(
    optimizer: optax.GradientTransformation, multipliers: Callable[[PyTree], PyTree]
) -> optax.GradientTransformation:
    """Returns an optimizer whose steps are multiplied by a learning-rate multiplier for each param.

    One optimizer sees all updates, without the multipliers: what it computes of all together, such as the norm that
    is clipped, is that of the whole update.

    Args:
      optimizer: the optimizer to wrap.
      multipliers: `(params) -> tree of floats`, given any tree of the structure of the params. What has a multiplier of
        0 stays as it is, bit for bit.
    """

    def multiplied(steps, params):
        del params
        return jax.tree.map(lambda step, m: m * step if is_on(m) else jnp.zeros_like(step), steps, multipliers(steps))

    return optax.chain(optimizer, optax.stateless(multiplied))


def with_fixed(optimizer: optax.GradientTransformation, fixed: Collection[Path]) -> optax.GradientTransformation:
    """Returns an optimizer that leaves arrays of some paths as they are, whatever it does: no steps, no decay.

    These are running statistics among the params (`Network.statistics_paths`), and the fixed part of feedback
    (`Extras.fixed_feedback`). Their updates are zero, so that they have no part in a norm that is clipped.
    """

    def multipliers(tree):
        return jax.tree_util.tree_map_with_path(lambda path, _: 0.0 if keys(path) in fixed else 1.0, tree)

    return with_multipliers(optimizer, multipliers) if fixed else optimizer


def keys(path: Sequence) -> Path:
    """Returns the keys of a path in a tree of dicts, as JAX gives it."""
    return tuple(entry.key for entry in path)


def is_plain(optimizer: optax.GradientTransformation, steps: int) -> bool:
    """Returns whether an optimizer is gradient descent of rate 1, from the start of a run to its end."""
    params, update = jnp.full(2, 0.5), jnp.asarray([3e6, 0.0])  # large, to be clipped, and zero, to show a decay
    for step in (0, steps // 2, steps - 1):
        state = optimizer.init(params)
        if optax.tree_utils.tree_get_all_with_path(state, "count"):
            state = optax.tree_utils.tree_set(state, count=step)
        for _ in range(2):  # the second one shows a momentum
            change, state = optimizer.update(update, state, params)
            if jnp.any(change != -update):
                return False
    return True


def clips(optimizer: optax.GradientTransformation) -> bool:
    """Returns whether the step of one array depends on the updates of another one, as with a global norm."""
    array = jax.ShapeDtypeStruct((2,), jnp.float32)

    def step(updates, params):
        deltas, _ = optimizer.update({**updates, "one": params["one"]}, optimizer.init(params), params)
        return cast(dict[str, jax.Array], deltas)["one"]

    return bool(crossed(step, {"other": array}, {"one": array, "other": array}))


def must_be_plain(optimizer: FeedbackOptimizer) -> None:
    """Checks the optimizer of a rule that sets its feedback itself: `feedback - learn(...)` is the next feedback.

    That is so for running means, or a count of steps. For `Extras.check_feedback_optimizer`.

    Raises:
      BadOption: unless it is gradient descent of rate 1.
    """
    if not optimizer.is_plain:
        raise BadOption(
            "must be sgd with learning_rate=1, since this rule sets its feedback itself: "
            "+optimizer@feedback_optimizer=sgd feedback_optimizer.learning_rate=1",
            "feedback_optimizer",
            complete=True,
        )


def must_not_clip(optimizer: FeedbackOptimizer) -> None:
    """Checks the optimizer of a rule whose feedback takes the steps of the weights, of which the first layer has none.

    For `Extras.check_feedback_optimizer`.

    Raises:
      BadOption: if it clips by the global norm.
    """
    if optimizer.clips or optimizer.params_clip:
        raise BadOption(
            "optimizer.clip must be null, and an Optax optimizer must not scale all updates together: the weights and "
            "their feedback would be scaled differently",
            complete=True,
        )


def constant(learning_rate: float, steps: int) -> optax.Schedule:
    """Returns a constant learning rate."""
    del steps
    return optax.constant_schedule(learning_rate)


def cosine(learning_rate: float, steps: int, *, final: float, warmup: float) -> optax.Schedule:
    """Returns a linear rise from 0 over the fraction `warmup` of the steps, then a cosine decay.

    `final` is the last rate as a fraction of the highest. Both fractions are in [0, 1].
    """
    rising = round(number("schedule.warmup", warmup, least=0, most=1) * steps)
    end = learning_rate * number("schedule.final", final, least=0, most=1)
    return optax.warmup_cosine_decay_schedule(0.0 if rising else learning_rate, learning_rate, rising, steps, end)


def linear(learning_rate: float, steps: int, *, final: float) -> optax.Schedule:
    """Returns a linear decay over all steps; `final`, in [0, 1], is the last rate as a fraction of the first."""
    return optax.linear_schedule(learning_rate, learning_rate * number("schedule.final", final, least=0, most=1), steps)


def step_decay(learning_rate: float, steps: int, *, drops: list[tuple[float, float]]) -> optax.Schedule:
    """Returns the rate times a factor from each given fraction of the steps on; factors accumulate.

    Args:
      learning_rate: at the start.
      steps: of the whole run.
      drops: pairs (fraction of the steps, factor).

    Raises:
      BadOption: if it is no list of such pairs, or a fraction is outside [0, 1].
    """
    if not isinstance(drops, list) or not all(isinstance(drop, list | tuple) and len(drop) == 2 for drop in drops):
        raise BadOption(f"must be pairs such as [[0.5,0.1],[0.75,0.1]]; got {drops!r}", "schedule.drops")
    factors: dict[int, float] = {}
    for fraction, factor in drops:
        step = round(number("schedule.drops", fraction, least=0, most=1) * steps)
        factors[step] = factors.get(step, 1.0) * number("schedule.drops", factor, least=0)
    return optax.piecewise_constant_schedule(learning_rate, factors)


def constant_then_linear(learning_rate: float, steps: int, *, steps_down: float) -> optax.Schedule:
    """Returns the rate for half of the run, then a linear decay in equal steps to nearly 0.

    With E steps down in the whole run, such as one per epoch, the factor in step e, from 1, is `(1 + 2 (E - e)) / E`
    for e above E / 2: the schedule of Hinton's code for arXiv 2212.13345.
    """
    count = max(1, round(number("schedule.steps_down", steps_down, above=0)))
    starts = jnp.asarray([-(-i * steps // count) for i in range(1, count)], jnp.int32)

    def schedule(step):
        number_of_step = 1 + jnp.searchsorted(starts, step, side="right")
        factor = (1 + 2 * (count - number_of_step)) / count
        return learning_rate * jnp.where(2 * number_of_step <= count, 1.0, factor)

    return schedule


def is_kernel(path: Path) -> bool:
    """Returns whether the path of a param is that of a kernel."""
    return path[-1] == "kernel"


def keep_removed(
    optimizer: optax.GradientTransformation, is_sparse: Callable[[Path], bool] = is_kernel
) -> optax.GradientTransformation:
    """Returns an optimizer that keeps removed connections removed: weights that start at exactly 0 stay there.

    The optimizer sees no updates of removed connections, so that they have no part in a norm that is clipped.

    Args:
      optimizer: the optimizer to wrap.
      is_sparse: `(path) -> bool`: of which arrays connections may be removed, such as kernels (a bias may start at 0).
        An array that starts at 0 as a whole learns as a whole.
    """

    def init(params):
        def is_kept(path, p):
            return (p != 0) | ~jnp.any(p != 0) if is_sparse(keys(path)) else jnp.ones_like(p, bool)

        return jax.tree_util.tree_map_with_path(is_kept, params), optimizer.init(params)

    def update(updates, state, params=None):
        kept, inner = state
        deltas, inner = optimizer.update(_masked(updates, kept), inner, params)
        return _masked(deltas, kept), (kept, inner)

    return optax.GradientTransformation(init, update)


def _masked(tree: PyTree, kept: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, is_kept: jnp.where(is_kept, leaf, 0), tree, kept)
