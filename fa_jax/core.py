"""The contract of fa_jax: read this page first.

A learning rule is a pure function

    updates = rule.updates(params, feedback, batch)

* `params` is what the optimizer trains; `feedback` is the backward machinery, fixed or learned, that carries the
  learning signal; `updates` has the tree of `params` and the sign of a gradient, so any Optax optimizer descends it.
* A loss is a mean over the batch. Its error, and whatever a rule puts in the error's place, carries `1/batch`.
* All randomness of a step (dropout, noise) comes from `batch.key`. Nothing hides in a closure, a global or a clock.
* Layers count from 0 at the input. Arrays have the batch first; a stack of equal scanned layers is in front of that.
"""

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

PyTree = Any
Named = dict[str, jax.Array]
"""Arrays by the name of their place in the network, as in `stages_0/hidden`."""
LossFunction = Callable[[jax.Array, jax.Array], jax.Array]
"""`(logits, targets) -> scalar`, both `[batch, outputs]`: a mean over the batch, a sum over the outputs."""


class Loss(NamedTuple):
    """What is minimised, and how logits become outputs."""

    value: LossFunction
    outputs: Callable[[jax.Array], jax.Array]
    """Logits -> outputs, `[batch, outputs]` both: the identity, logistic units or softmax."""
    probabilities: bool = False
    """Whether the targets have to be probabilities, from 0 to 1."""


class Stream(enum.IntEnum):
    """The independent random streams of a seed. A new one goes at the end, so that no other one shifts."""

    TEACHER = 0
    DATA = 1
    ORDER = 2
    INIT = 3
    FEEDBACK = 4
    NOISE = 5
    PROBE = 6
    AUGMENTATION = 7


def stream(key: jax.Array, which: Stream) -> jax.Array:
    """Returns the key of one stream of a seed, whose own key is `jax.random.key(seed)`."""
    return jax.random.fold_in(key, int(which))


class Batch(NamedTuple):
    """The examples of one step, and its randomness."""

    inputs: jax.Array
    """`[batch, ...]`, ready for the network."""
    targets: jax.Array
    """`[batch, outputs]`: one-hot classes or real values."""
    key: jax.Array
    """A JAX key, another one every step."""


class Rule(NamedTuple):
    """A learning rule: three pure functions, and what else there is to it."""

    init: Callable[[jax.Array], tuple[PyTree, PyTree]]
    """`(key) -> (params, feedback)`, drawn from the streams INIT and FEEDBACK of a seed's key. All rules on a network
    start a seed from the same params."""
    updates: Callable[[PyTree, PyTree, Batch], PyTree]
    """`(params, feedback, batch) -> updates`: a gradient, or what the rule takes for one. Params may have nudges in
    them (`Network.nudge`), whose updates are the rule's learning signals: what a rule does to a gradient of weights
    after it has been found, it must not do to theirs."""
    predict: Callable[..., jax.Array]
    """`(params, inputs, key=None) -> logits [batch, outputs]`, without dropout; given a key, with it, and norms take
    the statistics of the batch, which is how training batches are scored."""
    learn: Callable[[PyTree, PyTree, Batch, PyTree], PyTree] | None = None
    """`(params, feedback, batch, updates) -> updates of the feedback`, or None: the feedback is fixed."""
    crossing: Callable[[PyTree, PyTree], Mapping[str, tuple[jax.Array, jax.Array]]] | None = None
    """`(params, feedback) -> {place: (backward weights, forward weights)}`, two arrays of one shape, in the order of
    the forward pass, to measure alignment; None: the rule's signal crosses no weights."""
    report: Callable[[PyTree, PyTree, Batch], Mapping[str, jax.Array]] | None = None
    """`(params, feedback, batch) -> {name: scalar}`: what else is worth recording of the rule on a probe batch, without
    dropout."""
    rates: Callable[[PyTree], PyTree] | None = None
    """`(params) -> tree of floats`: by what each param's learning rate is multiplied; None: by 1."""
    network: Any = None
    """The `fa_jax.network.Network` whose params are among the rule's, where it is not the one that the rule was made
    for: backprop through it is what the rule is compared with."""
    glance: Callable[..., jax.Array] | None = None
    """`(params, inputs, key) -> logits`: what training batches are scored by as they pass, where `predict` takes longer
    than a step, which then need not take a key; None: by `predict`."""
    needs_classes: bool = False
    """Whether targets have to be one-hot classes, for they are more to the rule than what the loss compares with."""


class Split(NamedTuple):
    """Examples as they are stored; `Task.prepare` and `Task.encode` make a batch of them inside the compiled step."""

    inputs: jax.Array
    """`[n, ...]`: uint8 images, or floats."""
    targets: jax.Array
    """`[n]` int32 classes, or `[n, outputs]` floats."""


class Running(NamedTuple):
    """A metric of the training batches: a number a batch, and what the mean of those numbers stands for."""

    of: Callable[[jax.Array, jax.Array], jax.Array]
    """`(outputs, targets) -> scalar`, both `[batch, outputs]`."""
    finish: Callable[[jax.Array], jax.Array] = lambda mean: mean


class Task(NamedTuple):
    """What is to be learned."""

    train: Split
    test: Split
    validation: Split | None
    """Examples held out of the training set, or None."""
    prepare: Callable[..., jax.Array]
    """Stored inputs -> network inputs `[batch, *input_shape]`, float32. That of images takes a second argument, a
    function `images -> images` that augments them, before what is done to each image by itself."""
    encode: Callable[[jax.Array], jax.Array]
    """Stored targets -> `[batch, outputs]`, float32."""
    metrics: Mapping[str, Callable[[jax.Array, jax.Array], jax.Array]]
    """Name -> `(outputs, targets) -> scalar`, both `[n, outputs]` over a whole split."""
    running: Mapping[str, Running]
    """Name -> how the metric is followed over the training batches between two evaluations."""
    input_shape: tuple[int, ...]
    outputs: int
