"""BP, FA and DFA through time equal their equations, in float64, without autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.losses import squared_error
from fa_jax.networks.recurrent import recurrent
from fa_jax.rules.bp import bp
from fa_jax.rules.dfa import dfa
from fa_jax.rules.fa import fa
from fa_jax.rules.predictive_coding.rule import predictive_coding
from fa_jax.rules.weight_mirror import weight_mirror
from tests.conftest import RECURRENT, direct, filled, layerwise, random_batch, rule_factory, to_float64
from tests.rules.reference import leaf, sigmoid

LOSS = squared_error(output="linear", derivative="exact").value
SHAPE, OUTPUTS, STEPS = (5, 2, 2), 3, 5
"""Images of five time steps, of four inputs each."""
LAYERS = ("layers_0", "layers_1")


def affine(params, name, x):
    """The output of a linear layer of a cell, of which some have no bias."""
    return x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name].get("bias", 0))


class Elman:
    """One time step: `h' = tanh(W x + V h + b)`."""

    def __init__(self, params, x, h):
        self.x, self.h = x, h
        self.state = np.tanh(affine(params, "i", x) + affine(params, "h", h))

    def backward(self, d):
        """Returns the errors at the outputs of the linear layers, and that at h by the way that has no weights."""
        delta = d * (1 - self.state**2)
        return {"i": delta, "h": delta}, 0


class Gated:
    """One time step of a gated recurrent unit."""

    def __init__(self, params, x, h):
        self.x, self.h = x, h
        self.r = sigmoid(affine(params, "ir", x) + affine(params, "hr", h))
        self.z = sigmoid(affine(params, "iz", x) + affine(params, "hz", h))
        self.inner = affine(params, "hn", h)
        self.n = np.tanh(affine(params, "in", x) + self.r * self.inner)
        self.state = (1 - self.z) * self.n + self.z * h

    def backward(self, d):
        at_z = d * (self.h - self.n) * self.z * (1 - self.z)
        at_n = d * (1 - self.z) * (1 - self.n**2)
        at_r = at_n * self.inner * self.r * (1 - self.r)
        errors = {"ir": at_r, "hr": at_r, "iz": at_z, "hz": at_z, "in": at_n, "hn": at_n * self.r}
        return errors, d * self.z


CELLS = {"elman": Elman, "gru": Gated}


def layer_backward(params, steps, signals, replace, kernel):
    """Returns the updates of a layer, and the errors at its inputs at each time step.

    Args:
      params: of the cell.
      steps: the cell at each time step.
      signals: the error at each state: from the layer above, or by direct feedback.
      replace: whether what comes back from later time steps is discarded.
      kernel: the backward kernel of a linear layer by its name.
    """
    updates = jax.tree.map(lambda p: np.zeros(p.shape), params)
    below, from_later = [], 0
    for step, signal in zip(reversed(steps), reversed(signals), strict=True):
        errors, from_later = step.backward(signal if replace else signal + from_later)
        at_x = np.zeros_like(step.x)
        for name, error in errors.items():
            inputs = step.x if name.startswith("i") else step.h
            updates[name]["kernel"] += inputs.T @ error
            if "bias" in updates[name]:
                updates[name]["bias"] += error.sum(0)
            back = error @ kernel(name).T
            if name.startswith("i"):
                at_x = at_x + back
            else:
                from_later = from_later + back
        below.insert(0, at_x)
    return updates, below


def reference(params, batch, cell, pooling, kernel, signals=None):
    """Returns the updates of all params; arguments as in the reference of the transformer."""
    x = np.asarray(batch.inputs).reshape(len(batch.inputs), STEPS, -1)
    inputs, layers = [x[:, t] for t in range(STEPS)], []
    for name in LAYERS:
        cell_params, steps = params[name]["cell"], []
        h = np.zeros((len(x), leaf(params, f"{name}/cell/{'h' if cell == 'elman' else 'hn'}")["kernel"].shape[0]))
        for x_t in inputs:
            steps.append(CELLS[cell](cell_params, x_t, h))
            h = steps[-1].state
        layers.append(steps)
        inputs = [step.state for step in steps]
    pooled = inputs[-1] if pooling == "last" else np.mean(inputs, 0)
    readout = params["readout"]
    error = (pooled @ readout["kernel"] + readout["bias"] - np.asarray(batch.targets)) / len(x)
    back = error @ kernel("readout").T
    d = [back / STEPS] * STEPS if pooling == "mean" else [np.zeros_like(back)] * (STEPS - 1) + [back]
    updates = {"readout": {"kernel": pooled.T @ error, "bias": error.sum(0)}}
    for i, name in reversed(list(enumerate(LAYERS))):
        d = d if signals is None else signals(error)[i]
        cell_kernel = functools.partial(lambda name, layer: kernel(f"{name}/cell/{layer}"), name)
        cell_updates, d = layer_backward(params[name]["cell"], layers[i], d, signals is not None, cell_kernel)
        updates[name] = {"cell": cell_updates}
    return updates


RULES = {
    "bp": bp,
    "fa": functools.partial(fa, init_feedback=layerwise()),
    "dfa": functools.partial(dfa, init_feedback=direct()),
}
CASES = [
    ("elman", "last", "fa"),
    ("elman", "last", "dfa"),
    ("gru", "last", "fa"),
    ("gru", "last", "dfa"),
    pytest.param("elman", "mean", "fa", marks=pytest.mark.slow),
    pytest.param("gru", "mean", "dfa", marks=pytest.mark.slow),
    pytest.param("elman", "last", "bp", marks=pytest.mark.slow),
    pytest.param("gru", "last", "bp", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("cell", "pooling", "name"), CASES)
def test_rules_equal_their_equations_through_time(float64, cell, pooling, name):
    network = recurrent(SHAPE, OUTPUTS, **{**RECURRENT, "cell": cell, "pooling": pooling})
    params = to_float64(filled(jax.eval_shape(network.init, jax.random.key(0))))
    batch = random_batch(SHAPE, OUTPUTS, size=3, dtype=np.float64)
    rule = RULES[name](network, LOSS)
    feedback = to_float64(filled(jax.eval_shape(rule.init, jax.random.key(2))[1], seed=1))

    def forward_kernel(layer):
        return np.asarray(leaf(params, layer)["kernel"])

    def backward_kernel(layer):
        # The error crosses no input weights of the first layer.
        return np.asarray(feedback[layer]) if layer in feedback else np.zeros_like(forward_kernel(layer))

    def signals(error):
        return [[error @ np.asarray(b) for b in feedback[f"{layer}/hidden"]] for layer in LAYERS]

    expected = {
        "bp": lambda: reference(params, batch, cell, pooling, forward_kernel),
        "fa": lambda: reference(params, batch, cell, pooling, backward_kernel),
        "dfa": lambda: reference(params, batch, cell, pooling, forward_kernel, signals),
    }[name]()
    updates = jax.jit(rule.updates)(params, feedback, batch)
    assert jax.tree.structure(updates) == jax.tree.structure(expected)
    for (path, got), wanted in zip(jax.tree.leaves_with_path(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-13, err_msg=jax.tree_util.keystr(path))


def make_elman(**options):
    return recurrent(SHAPE, OUTPUTS, **{**RECURRENT, "cell": "elman", "hidden": [4], **options})


def test_the_state_of_every_time_step_is_a_hidden_layer_and_every_kernel_but_the_first_is_crossed():
    network = recurrent(SHAPE, OUTPUTS, **RECURRENT)
    shapes = {f"{name}/hidden": ((STEPS,), (width,)) for name, width in zip(LAYERS, (4, 3), strict=True)}
    assert network.hidden_shapes == shapes
    not_crossed = {f"layers_0/cell/i{gate}" for gate in "rzn"}
    assert set(network.crossed_kernels) == set(network.kernel_shapes) - not_crossed
    fans = {name: (kernel.fan_in, kernel.fan_out) for name, kernel in network.kernel_shapes.items()}
    assert (fans["layers_0/cell/ir"], fans["layers_0/cell/hn"], fans["layers_1/cell/iz"]) == ((4, 4), (4, 4), (4, 3))


def test_every_state_learns_from_its_own_direct_feedback_and_from_none_of_later_states():
    network = make_elman()
    rule = dfa(network, LOSS, init_feedback=direct(density=1.0))
    params, feedback = rule.init(jax.random.key(0))
    batch = random_batch(SHAPE, OUTPUTS)
    updates = jax.jit(rule.updates)
    (b,) = feedback.values()
    alone = [updates(params, {"layers_0/hidden": jnp.zeros_like(b).at[t].set(b[t])}, batch) for t in range(STEPS)]
    kernels = [np.asarray(u["layers_0"]["cell"]["h"]["kernel"]) for u in alone]
    assert not np.any(kernels[0])  # the state before the first is 0
    assert all(np.any(kernel) for kernel in kernels[1:])
    together = updates(params, feedback, batch)["layers_0"]["cell"]["h"]["kernel"]
    np.testing.assert_allclose(np.sum(kernels, 0), together, rtol=1e-5, atol=1e-7)


def test_shared_direct_feedback_is_one_matrix_at_all_time_steps(compose):
    for rule, shared in (("dfa", True), ("direct_target_propagation", False)):
        assert compose("task=digits", "architecture=recurrent", f"rule={rule}").feedback.shared == shared
    feedback = direct(shared=True)(make_elman(), jax.random.key(0), {})["layers_0/hidden"]
    np.testing.assert_array_equal(feedback, np.broadcast_to(feedback[:1], feedback.shape))


def test_weight_mirrors_average_the_estimates_of_all_time_steps():
    network = make_elman()
    rule = weight_mirror(network, LOSS, init_feedback=layerwise())
    params, feedback = rule.init(jax.random.key(0))
    batch, draws = random_batch(SHAPE, OUTPUTS, size=8), 500
    learn = jax.jit(jax.vmap(lambda key: rule.learn(params, feedback, batch._replace(key=key), None)))
    learned = learn(jax.random.split(jax.random.key(1), draws))
    for name, changes in learned.items():
        estimate = -np.asarray(changes, np.float64)
        error = np.abs(estimate.mean(0) - np.asarray(network.kernels(params)[name]))
        assert np.all(error < 6 * estimate.std(0) / np.sqrt(draws)), name
    # xi_j (W xi)_i has the variance |W_i|^2 + W_ij^2; this is the mean over five time steps of eight examples.
    kernel = np.asarray(network.kernels(params)["layers_0/cell/h"])
    expected = np.sqrt((np.sum(kernel**2, 0) + kernel**2) / (8 * STEPS))
    np.testing.assert_allclose(learned["layers_0/cell/h"].std(0), expected, rtol=0.2)


def test_zero_divergence_needs_hidden_layers_one_after_another():
    options = {**rule_factory("predictive_coding").keywords, "inference": "zero_divergence", "step_size": 1.0}
    message = "^inference must not be zero_divergence unless each hidden layer feeds the next one alone; in Recurrent"
    with pytest.raises(BadOption, match=message):
        predictive_coding(make_elman(), LOSS, **{**options, "steps": None})


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (SHAPE, {"cell": "lstm"}, "^cell must be one of elman, gru; got 'lstm'"),
        (SHAPE, {"hidden": []}, r"^hidden must be a list of widths such as \[64\]; got \[\]"),
        (SHAPE, {"hidden": [0]}, "^hidden must be an integer of at least 1; got 0"),
        (SHAPE, {"pooling": "first"}, "^pooling must be one of last, mean; got 'first'"),
        (SHAPE, {"recurrent_scale": -1.0}, "^recurrent_scale must be a finite number at least 0; got -1.0"),
        ((12,), {}, r"^needs images, or sequences of at least two steps; the inputs of the task have shape \(12,\)"),
        ((1, 5, 1), {}, r"^needs images, or sequences of at least two steps; .* have shape \(1, 5, 1\)"),
    ],
)
def test_bad_options_are_named(shape, options, message):
    with pytest.raises(BadOption, match=message):
        recurrent(shape, OUTPUTS, **{**RECURRENT, **options})
