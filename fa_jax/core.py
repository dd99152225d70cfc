"""The contract of fa_jax: the types that rules, networks and tasks share. Read this file first.

A learning rule is a tuple of pure functions. The main one is

    updates = rule.updates(params, feedback, batch)

* `params` are the weights that the optimizer trains, and the running statistics of normalisation layers, whose updates
  are zero. `feedback` is the other state of the rule: the weights that carry the learning signal backward, fixed or
  learned, or for some rules running means.
* `updates` has the tree of `params` and the sign of a gradient, whose place it takes: an Optax optimizer turns it into
  a step downhill. That step, which Optax calls updates, is called deltas here.
* A loss is a mean over the batch, so its gradients dL/dlogits and dL/dh include the factor `1/batch`. The learning
  signals that a rule puts in their place include it too.
* All randomness of a step (dropout, noise, negative data) comes from `batch.key`. The functions of a rule may close
  over constants, such as the network and the loss, but over nothing that changes. They may compute the same forward
  pass more than once: a step is compiled as a whole, and XLA merges equal operations.
* Layer 0 is the one that receives the input, `h_{-1}`. The batch is the leading axis of activations. A stack of equal
  layers under `nn.scan`, or the time steps of a recurrent layer, add one axis in front of it, `[*stack, batch, ...]`.
* The readout is the last layer, which computes the logits; all others are hidden. A stage is a hidden layer
  together with its activation function, pooling and dropout. The probe batch is the first test examples, on which
  signals, angles and other properties of hidden layers are measured.

Equations are those of the papers, for one example as a column vector:

    a_i = W_i h_{i-1} + b_i        h_i = f(a_i)

d_i is the substitute for dL/da_i; a learning signal is the substitute for dL/dh_i, which autodiff multiplies by
f'(a_i). Arrays hold examples as rows, so the `kernel` of a dense layer is W^T, `[in, out]`; its backward kernel is B,
`[in, out]`; a matrix of direct feedback is B^T, `[outputs, width]`.
"""

import enum
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax

PyTree = Any
LayerArrays = dict[str, jax.Array]
"""Arrays keyed by the path of a module in the network: of a hidden layer's `Hidden`, such as `stages_0/hidden`, for
signals and activations; of a linear layer, such as `stages_0/linear`, for kernels."""
BackwardKernels = Mapping[str, Any]
"""What replaces the kernels of linear layers in the backward pass, keyed like `LayerArrays`: an array of the kernel's
shape, or a dict of two factors, see `primitives.with_product_weights`."""
LossFunction = Callable[[jax.Array, jax.Array], jax.Array]
"""`(logits, targets) -> scalar`, both `[batch, outputs]`: the mean over the batch of a sum over the outputs."""


class Loss(NamedTuple):
    """A loss, and the output units that belong to it."""

    value: LossFunction
    output_units: Callable[[jax.Array], jax.Array]
    """Logits to outputs, `[batch, outputs]` both: identity, sigmoid or softmax."""
    needs_probabilities: bool = False
    """True if the targets must be probabilities, in [0, 1]."""


class Batch(NamedTuple):
    """The examples of one step, and the key of its randomness."""

    inputs: jax.Array
    """`[batch, *input_shape]`, preprocessed, float32."""
    targets: jax.Array
    """`[batch, outputs]`: one-hot classes or real values, float32."""
    key: jax.Array
    """A JAX key, different in every step."""


class FeedbackOptimizer(NamedTuple):
    """How the feedback is optimized, for the rules that accept only some optimizers; see `Extras`."""

    shared: bool
    """True if no `feedback_optimizer` was chosen, so that the feedback has the optimizer of the params."""
    scaling: str
    """The dotted name of its Optax transformation, such as `optax.identity` for plain gradient descent."""
    weight_decay: float | list
    """See `optimizers.descend`."""
    clips: bool
    """True if it scales all updates together, as `optimizer.clip` does."""
    params_clip: bool
    """True if the optimizer of the params does."""
    is_plain: bool
    """True if it is gradient descent of rate 1, from the start of the run to its end."""


class Extras(NamedTuple):
    """The optional part of a rule."""

    signals: Callable[[PyTree, PyTree, Batch], LayerArrays] | None = None
    """`(params, feedback, batch) -> signals`: the rule's substitute for dL/dh of each hidden layer, named and
    shaped as in `Network.hidden_shapes`, to be compared with backprop's. `backward_rule` provides it."""
    weight_pairs: Callable[[PyTree, PyTree], Mapping[str, tuple[jax.Array, jax.Array]]] | None = None
    """`(params, feedback) -> {layer: (backward weights, forward weights)}`, each pair of one shape, by the name of a
    kernel or of a hidden layer, to measure their alignment. None: the rule has no backward weights to compare."""
    measure: "Measure | None" = None
    """Further metrics of this rule."""
    learning_rate_multipliers: Callable[[PyTree], PyTree] | None = None
    """`(params) -> tree of floats`, one for each param. None: 1."""
    network: Any = None
    """The `fa_jax.network.Network` used for prediction and for the comparison with backprop, if the rule replaces the
    network that it was built for. Its params are a subset of the rule's."""
    train_predict: Callable[..., jax.Array] | None = None
    """Cheaper substitute for `predict`, used for training metrics. None: `predict`."""
    train_predict_label: str = ""
    """How `train_predict` predicts, such as `softmax`, if it differs from `predict`: training scores are shown with it,
    since they are not comparable with test scores. Empty: the same prediction."""
    fixed_feedback: frozenset[tuple[str, ...]] = frozenset()
    """The paths of feedback arrays that stay fixed although the rule learns the others: zero updates, no decay."""
    partners: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    """Pairs (path of a feedback array, path of the param whose steps it takes): where the param is frozen, so is the
    array."""
    without: "Callable[[Callable[[tuple[str, ...]], bool]], Rule] | None" = None
    """`(is_frozen) -> rule`: this rule without any part of the params of some paths, for one whose updates of a param
    depend on whether others learn, such as by noise in all that do. None: frozen params have zero updates, no more."""
    check_feedback_optimizer: Callable[[FeedbackOptimizer], None] | None = None
    """Raises `checks.BadOption` if the feedback would not learn as the rule says, such as `optimizers.must_be_plain`.
    None: any optimizer is fine."""
    needs_classes: bool = False
    """True if the rule consumes labels directly, so that targets must be one-hot."""


class Rule(NamedTuple):
    """A learning rule: three pure functions, a fourth one if the feedback learns, and `extras`, the optional part."""

    init: Callable[[jax.Array], tuple[PyTree, PyTree]]
    """`(key) -> (params, feedback)`, given a seed's key; draws from its streams INIT and FEEDBACK. For one seed, all
    rules on one network start from the same params."""
    updates: Callable[[PyTree, PyTree, Batch], PyTree]
    """`(params, feedback, batch) -> updates`: the gradient, or the rule's substitute for it."""
    predict: Callable[..., jax.Array]
    """`(params, inputs, key=None) -> logits [batch, outputs]`. Without a key: no dropout, and normalisation layers
    use their running statistics. With a key: dropout, and the statistics of the batch, as in training metrics."""
    learn: Callable[[PyTree, PyTree, Batch, PyTree], PyTree] | None = None
    """`(params, feedback, batch, updates) -> feedback_updates`, which the feedback optimizer descends: the tree of
    `feedback`, with the sign of a gradient. None: the feedback is fixed."""
    extras: Extras = Extras()


class Stream(enum.IntEnum):
    """The independent random streams of a seed. Append new ones, so that the existing ones keep their numbers."""

    TEACHER = 0
    """The teacher network of a teacher-student task."""
    DATA = 1
    """The examples of a generated task."""
    ORDER = 2
    """The order of the examples in an epoch."""
    INIT = 3
    """The initial params."""
    FEEDBACK = 4
    """The initial feedback."""
    STEP = 5
    """The randomness of a training step, `Batch.key`."""
    PROBE = 6
    """The randomness of measurements on the probe batch."""
    AUGMENTATION = 7
    """The augmentation of training images."""


def stream(key: jax.Array, number: Stream) -> jax.Array:
    """Returns the key of one random stream, given a seed's key, `jax.random.key(seed)`."""
    return jax.random.fold_in(key, int(number))


class Split(NamedTuple):
    """Examples as they are stored on the device; a step makes a batch of them by `Task.prepare` and `Task.encode`."""

    inputs: jax.Array
    """`[n, ...]`: uint8 images, or floats."""
    targets: jax.Array
    """`[n]` int32 classes, or `[n, outputs]` floats."""


class Task(NamedTuple):
    """A data set with its preprocessing and its metrics."""

    train: Split
    test: Split
    validation: Split | None
    """Examples held out of the training set, or None."""
    prepare: Callable[..., jax.Array]
    """Stored inputs to network inputs, `[batch, *input_shape]` float32. For images, it takes an optional second
    argument, a function `images -> images` that augments them before each image is standardised individually."""
    encode: Callable[[jax.Array], jax.Array]
    """Stored targets to `[batch, outputs]`, float32."""
    metrics: tuple["Metric", ...]
    """The scores of outputs; runs are judged by the first."""
    input_shape: tuple[int, ...]
    outputs: int
    """The number of outputs."""
    black: jax.Array | None = None
    """A black image after preprocessing, `input_shape` float32, with which augmentation pads; None: the inputs are not
    images."""


class Flag(NamedTuple):
    """When tables and figures mark a value of a metric, which they show all the same."""

    metric: str
    """The metric that decides, at the same layer: the marked one itself, or another such as the norm of what an angle
    is measured to."""
    allowed: tuple[float | None, float | None]
    """The smallest and the largest value of it that is not marked."""
    meaning: str
    """The note shown for a marked value, such as `backprop's signal is below the floor`."""


class Metric(NamedTuple):
    """A number that is recorded, declared once, with all that tables and figures need to know of it.

    The metrics of a task are scores of the outputs; a run is judged by the first of them. Besides these and the loss,
    every metric is declared by a `Measure` of the hidden layers.
    """

    name: str
    label: str
    """The name in tables and on axes, such as `error`."""
    unit: str = ""
    """The unit, such as `%` or `degrees`; empty for a plain number."""
    better: Literal["lower", "higher", "neither"] = "lower"
    logarithmic: bool = False
    """True if values span decades: means are geometric, axes logarithmic."""
    bounds: tuple[float | None, float | None] = (None, None)
    """The smallest and the largest possible value, where there is one."""
    plotted: bool = True
    """Whether the report draws it. Norms of vectors are recorded only."""
    flag: Flag | None = None
    """When a value is marked."""
    random: tuple[float, float] | None = None
    """For a mean over examples that compares learning signals, such as an angle: its expected value for random signals,
    and the standard deviation for one example times the square root of the number of units."""
    score: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    """For scores only: `(outputs, targets) -> scalar`, both `[n, outputs]`, over all examples of a split."""
    batch_score: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    """For scores only: the score of one training batch; these are averaged. None: `score` is used."""
    from_batches: Callable[[jax.Array], jax.Array] = lambda mean: mean
    """For scores only: maps the mean of `batch_score` over batches to the metric, such as the square root for a root
    mean square error."""


class Measure(NamedTuple):
    """Metrics on the probe batch, the first test examples, computed at every evaluation and never used in training."""

    metrics: tuple[Metric, ...]
    compute: Callable[..., Mapping[str, jax.Array]]
    """Returns scalars by the name of a metric, or by `<name>_<layer>` for one value per layer. The arguments are
    `(rule, network, loss, params, feedback, batch)`, where `loss` is a `LossFunction`; those of `Extras.measure` are
    `(params, feedback, batch)` alone."""
    check: Callable[[Any], None] = lambda network: None
    """`(network)`: raises `checks.BadOption`, before anything is compiled, if it is not defined for a network."""
    needs_classes: bool = False
    """True if it compares examples of the same class and of different ones, so that targets must be one-hot."""
