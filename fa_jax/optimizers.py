"""How updates become steps: an Optax chain of clipping, weight decay, scaling and a scheduled learning rate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fa_jax.checks import BadOption, number
from fa_jax.core import PyTree


def descend(
    scaling: optax.GradientTransformation,
    *,
    learning_rate: float,
    schedule: Callable[[float, int], optax.Schedule],
    weight_decay: float,
    clip: float | None,
) -> Callable[[int], optax.GradientTransformation]:
    """Returns `steps -> optimizer`, for a run of that many steps.

    Args:
      scaling: what the optimizer is named for: `optax.identity`, `optax.scale_by_adam`, ...
      learning_rate: at its highest, above 0.
      schedule: `(learning_rate, steps) -> schedule`.
      weight_decay: times each param, added to its update before the scaling, so it is multiplied by the learning rate.
        Biases decay as well; the running statistics of a norm do not.
      clip: the global norm above which updates are scaled down to it; None: never. Where a rule has rates of its own,
        it is the norm of the params of one rate.
    """
    rate = number("optimizer.learning_rate", learning_rate, above=0)
    decay = number("optimizer.weight_decay", weight_decay, least=0)
    clipping = optax.identity() if clip is None else optax.clip_by_global_norm(number("optimizer.clip", clip, above=0))

    def for_steps(steps):
        return optax.chain(
            clipping,
            optax.add_decayed_weights(decay, _learned) if decay else optax.identity(),
            scaling,
            optax.scale_by_learning_rate(schedule(rate, steps)),
        )

    return for_steps


def at_rates(
    optimizer: optax.GradientTransformation, rates: Callable[[PyTree], PyTree], params: PyTree
) -> optax.GradientTransformation:
    """Returns an optimizer whose steps are multiplied by a rate of their own for each param.

    Params of one rate share an optimizer, which sees no others: a global norm is theirs alone.

    Args:
      optimizer: what makes the steps.
      rates: `(params) -> tree of floats`.
      params: as they will be, or their shapes.
    """
    different = set(jax.tree.leaves(rates(params)))
    return optax.partition({rate: optax.chain(optimizer, optax.scale(rate)) for rate in different}, rates)


def _learned(params):
    """Marks what rules update, which the running statistics among the params are not."""
    statistics = (["mean"], ["var"])
    return jax.tree_util.tree_map_with_path(lambda path, _: [e.key for e in path[-1:]] not in statistics, params)


def constant(learning_rate: float, steps: int) -> optax.Schedule:
    """The same learning rate throughout."""
    del steps
    return optax.constant_schedule(learning_rate)


def cosine(learning_rate: float, steps: int, *, final: float, warmup: float) -> optax.Schedule:
    """A linear rise from 0 over the fraction `warmup` of the steps, then half a cosine down to `final` of the rate."""
    rising = round(number("optimizer.schedule.warmup", warmup, least=0, most=1) * steps)
    end = learning_rate * number("optimizer.schedule.final", final, least=0, most=1)
    return optax.warmup_cosine_decay_schedule(0.0 if rising else learning_rate, learning_rate, rising, steps, end)


def staircase(learning_rate: float, steps: int, *, drops: list[tuple[float, float]]) -> optax.Schedule:
    """The rate times a factor from each given fraction of the steps on; the factors multiply up.

    Args:
      learning_rate: at the start.
      steps: of the whole run.
      drops: pairs (fraction of the steps, factor).

    Raises:
      BadOption: if it is no list of such pairs, or a fraction is not from 0 to 1.
    """
    if not isinstance(drops, list) or not all(isinstance(drop, list | tuple) and len(drop) == 2 for drop in drops):
        raise BadOption(f"optimizer.schedule.drops must be pairs such as [[0.5,0.1],[0.75,0.1]]; got {drops!r}")
    at: dict[int, float] = {}
    for fraction, factor in drops:
        step = round(number("optimizer.schedule.drops", fraction, least=0, most=1) * steps)
        at[step] = at.get(step, 1.0) * number("optimizer.schedule.drops", factor, least=0)
    return optax.piecewise_constant_schedule(learning_rate, at)


def halfway(learning_rate: float, steps: int, *, stairs: float) -> optax.Schedule:
    """The rate for half of the steps, then down to nearly 0 in equal stairs, such as one an epoch.

    In stair e of E, from 1, the rate is times `(1 + 2 (E - e)) / E` for e above E / 2: the schedule of Hinton's code
    for arXiv 2212.13345.
    """
    count = max(1, round(number("optimizer.schedule.stairs", stairs, above=0)))
    starts = jnp.asarray([-(-stair * steps // count) for stair in range(1, count)], jnp.int32)

    def schedule(step):
        stair = 1 + jnp.searchsorted(starts, step, side="right")
        return learning_rate * jnp.where(2 * stair <= count, 1.0, (1 + 2 * (count - stair)) / count)

    return schedule


def keep_removed() -> optax.GradientTransformation:
    """Returns the transformation that keeps connections removed: weights that start at exactly 0 stay there.

    Only kernels count, a bias may start at 0; and so may a kernel as a whole.
    """

    def init(params):
        def there(path, p):
            return (p != 0) | ~jnp.any(p != 0) if path[-1].key == "kernel" else jnp.ones_like(p, bool)

        return jax.tree_util.tree_map_with_path(there, params)

    def update(updates, state, params=None):
        del params
        return jax.tree.map(lambda u, kept: jnp.where(kept, u, 0), updates, state), state

    return optax.GradientTransformation(init, update)
