"""Rules equal their equations on convolutional and residual networks, in float64; the reference uses no autodiff."""

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from fa_jax.core import Batch
from fa_jax.feedback import deviations
from fa_jax.losses import squared_error
from fa_jax.network import Network
from fa_jax.networks.cnn import cnn
from fa_jax.networks.resnet import resnet
from fa_jax.rules.bp import bp
from fa_jax.rules.brsf import brsf
from fa_jax.rules.dfa import dfa
from fa_jax.rules.direct_kolen_pollack import direct_kolen_pollack
from fa_jax.rules.drtp import drtp
from fa_jax.rules.fa import fa
from fa_jax.rules.frsf import frsf
from fa_jax.rules.kolen_pollack import kolen_pollack
from fa_jax.rules.sdfa import sdfa
from fa_jax.rules.usf import usf
from tests.conftest import CNN, RESNET, compiled, direct, filled, layerwise, magnitudes, random_batch, to_float64
from tests.rules.images import convolve, input_signal, kernel_update, max_pool, unpool
from tests.rules.reference import leaf

pytestmark = pytest.mark.usefixtures("float64")

LOSS = squared_error(output="linear", derivative="exact").value
NAMES = ["stages_0/linear", "stages_1/linear", "stages_2/linear", "readout/linear"]


def kernel(tree, name):
    return np.asarray(leaf(tree, name)["kernel"])


def bias(tree, name):
    return np.asarray(leaf(tree, name)["bias"])


def tanh_derivative(h):
    """The derivative of tanh where its value is h."""
    return 1 - h**2


def draw_feedback(rule):
    return to_float64(rule.init(jax.random.key(2))[1])


def projected(error, feedback, network):
    """The output error times the direct feedback of each hidden layer, in order."""
    return [np.tensordot(error, np.asarray(feedback[name]), 1) for name in network.hidden_shapes]


class ConvolutionalReference:
    """The forward pass of the network `CNN`, and its updates given the errors at the pre-activations."""

    def __init__(self, params, batch):
        self.kernels = [kernel(params, name) for name in NAMES]
        biases = [bias(params, name) for name in NAMES]
        self.x = np.asarray(batch.inputs)
        self.h0 = np.tanh(convolve(self.x, self.kernels[0], biases[0], "SAME"))
        self.pooled, self.maxima = max_pool(self.h0, 3, 2)
        self.h1 = np.tanh(convolve(self.pooled, self.kernels[1], biases[1], "VALID"))
        self.flat = self.h1.reshape(len(self.x), -1)
        self.h2 = np.tanh(self.flat @ self.kernels[2] + biases[2])
        self.error = (self.h2 @ self.kernels[3] + biases[3] - np.asarray(batch.targets)) / len(self.x)

    def deltas(self, signals):
        """The errors at the pre-activations, given the signals at the three `Hidden`s, of which the first is pooled."""
        s0, s1, s2 = signals
        unpooled = unpool(s0, self.maxima, self.h0.shape, 3, 2)
        derivatives = [tanh_derivative(h) for h in (self.h0, self.h1, self.h2)]
        return [*(s * d for s, d in zip((unpooled, s1, s2), derivatives, strict=True)), self.error]

    def layerwise_deltas(self, kernels):
        """The same with every signal sent back through the backward kernel of the next layer; the first is not used."""
        _, *kernels = kernels
        s2 = self.error @ kernels[2].T
        s1 = ((s2 * tanh_derivative(self.h2)) @ kernels[1].T).reshape(self.h1.shape)
        s0 = input_signal(s1 * tanh_derivative(self.h1), kernels[0], "VALID", self.pooled.shape)
        return self.deltas([s0, s1, s2])

    def check(self, updates, deltas):
        expected = [
            kernel_update(self.x, deltas[0], self.kernels[0], "SAME"),
            kernel_update(self.pooled, deltas[1], self.kernels[1], "VALID"),
            self.flat.T @ deltas[2],
            self.h2.T @ deltas[3],
        ]
        for name, expected_kernel, delta in zip(NAMES, expected, deltas, strict=True):
            np.testing.assert_allclose(kernel(updates, name), expected_kernel, rtol=1e-9, atol=1e-12, err_msg=name)
            expected_bias = delta.reshape(-1, delta.shape[-1]).sum(0)
            np.testing.assert_allclose(bias(updates, name), expected_bias, rtol=1e-9, atol=1e-12, err_msg=name)


class Case(NamedTuple):
    network: Network
    params: dict
    batch: Batch
    reference: ConvolutionalReference


def make_case(**options):
    network = cnn((8, 8, 2), 4, **{**CNN, **options})
    params = to_float64(network.init(jax.random.key(1)))
    batch = random_batch((8, 8, 2), dtype=np.float64)
    return Case(network, params, batch, ConvolutionalReference(params, batch))


@pytest.fixture
def case():
    return make_case()


def test_bp_through_convolution_and_pooling(case):
    network, params, batch, reference = case
    reference.check(bp(network, LOSS).updates(params, (), batch), reference.layerwise_deltas(reference.kernels))


def test_fa_through_convolution_and_pooling(case):
    network, params, batch, reference = case
    rule = fa(network, LOSS, init_feedback=layerwise())
    feedback = draw_feedback(rule)
    kernels = [None, *(np.asarray(feedback[name]) for name in NAMES[1:])]
    reference.check(rule.updates(params, feedback, batch), reference.layerwise_deltas(kernels))


def test_usf_magnitude_has_the_fan_in_of_the_window(case):
    network, params, batch, reference = case
    init_feedback = functools.partial(deviations, distribution="fan_normal", scale=1.0)
    feedback = init_feedback(network, jax.random.key(2), params)
    fans = [3 * 3 * 2, 3 * 3 * 4, reference.flat.shape[1], 6]
    kernels = [np.sign(w) / np.sqrt(fan) for w, fan in zip(reference.kernels, fans, strict=True)]
    updates = usf(network, LOSS, init_feedback=init_feedback).updates(params, feedback, batch)
    reference.check(updates, reference.layerwise_deltas(kernels))


@pytest.mark.parametrize("factory", [frsf, brsf])
def test_sign_concordant_feedback_has_the_signs_of_convolution_kernels(case, factory):
    network, params, batch, reference = case
    rule = factory(network, LOSS, init_feedback=magnitudes())
    feedback = draw_feedback(rule)
    drawn = magnitudes()(network, batch.key, params) if factory is brsf else feedback
    signs = [np.sign(w) for w in reference.kernels[1:]]
    kernels = [None, *(np.abs(drawn[name]) * sign for name, sign in zip(NAMES[1:], signs, strict=True))]
    reference.check(rule.updates(params, feedback, batch), reference.layerwise_deltas(kernels))


def test_kolen_pollack_feedback_takes_the_updates_of_the_kernels(case):
    network, params, batch, reference = case
    rule = kolen_pollack(network, LOSS, init_feedback=layerwise())
    feedback = draw_feedback(rule)
    learned = rule.learn(params, feedback, batch, rule.updates(params, feedback, batch))
    deltas = reference.layerwise_deltas([None, *(np.asarray(feedback[name]) for name in NAMES[1:])])
    expected = kernel_update(reference.pooled, deltas[1], reference.kernels[1], "VALID")
    np.testing.assert_allclose(learned[NAMES[1]], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(learned[NAMES[2]], reference.flat.T @ deltas[2], rtol=1e-9, atol=1e-12)
    assert set(learned) == set(NAMES[1:])


def test_direct_kolen_pollack_learns_the_product_of_error_and_pooled_activations(case):
    network, params, batch, reference = case
    rule = direct_kolen_pollack(network, LOSS, init_feedback=direct())
    feedback = draw_feedback(rule)
    learned = rule.learn(params, feedback, batch, rule.updates(params, feedback, batch))
    for name, h in zip(network.hidden_shapes, (reference.pooled, reference.h1, reference.h2), strict=True):
        expected = np.tensordot(reference.error, h, (0, 0))
        np.testing.assert_allclose(learned[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("factory", [dfa, drtp, sdfa, direct_kolen_pollack])
def test_direct_signals_reach_the_positions_of_the_maxima_alone(case, factory):
    network, params, batch, reference = case
    rule = factory(network, LOSS, init_feedback=direct())
    feedback = draw_feedback(rule)
    examples = len(reference.x)
    teaching = {drtp: -np.asarray(batch.targets) / examples, sdfa: np.sign(reference.error) / examples}
    signals = projected(teaching.get(factory, reference.error), feedback, network)
    assert [s.shape[1:] for s in signals] == [(3, 3, 4), (1, 1, 5), (6,)]
    reference.check(rule.updates(params, feedback, batch), reference.deltas(signals))


def test_hidden_layer_may_end_before_the_pooling():
    network, params, batch, reference = make_case(hidden_position="before_pooling")
    rule = dfa(network, LOSS, init_feedback=direct())
    feedback = draw_feedback(rule)
    s0, s1, s2 = projected(reference.error, feedback, network)
    assert s0.shape[1:] == (8, 8, 4)
    _, *deltas = reference.deltas([np.zeros_like(reference.pooled), s1, s2])
    reference.check(rule.updates(params, feedback, batch), [s0 * tanh_derivative(reference.h0), *deltas])


def subsample(x):
    return x[:, ::2, ::2]


class ResidualReference:
    """ResNet-8 without norm: a stem, one block that keeps the shape, and two that halve the image."""

    def __init__(self, params, batch):
        self.kernel = functools.partial(kernel, params)
        self.x = np.asarray(batch.inputs)
        self.hidden = [np.tanh(convolve(self.x, self.kernel("stages_0/linear"), 0, "SAME"))]
        self.inner = [None]
        for i in (1, 2, 3):
            x, stride = self.hidden[-1], 1 if i == 1 else 2
            a = convolve(x, self.kernel(f"stages_{i}/first"), 0, "SAME")
            # On an even image, a padded convolution of stride 2 starts one position further in.
            h = np.tanh(a if stride == 1 else a[:, 1::2, 1::2])
            self.inner.append(h)
            a = convolve(h, self.kernel(f"stages_{i}/second"), 0, "SAME")
            a = a + (x if stride == 1 else subsample(x) @ self.kernel(f"stages_{i}/shortcut")[0, 0])
            self.hidden.append(np.tanh(a))
        self.average = self.hidden[-1].mean((1, 2))
        logits = self.average @ self.kernel("readout/linear")
        self.error = (logits - np.asarray(batch.targets)) / len(logits)

    def block(self, i, signal, backward):
        """Returns the updates of block i by the signal at its `Hidden`, and the signal at its input."""
        x, h = self.hidden[i - 1], self.inner[i]
        delta = signal * tanh_derivative(self.hidden[i])
        second = kernel_update(h, delta, self.kernel(f"stages_{i}/second"), "SAME")
        inner = input_signal(delta, backward(f"stages_{i}/second"), "SAME", h.shape) * tanh_derivative(h)
        if i > 1:
            dilated = np.zeros((*x.shape[:3], h.shape[-1]))
            dilated[:, 1::2, 1::2] = inner
            inner = dilated
        updates = {
            f"stages_{i}/second": second,
            f"stages_{i}/first": kernel_update(x, inner, self.kernel(f"stages_{i}/first"), "SAME"),
        }
        signal_below = input_signal(inner, backward(f"stages_{i}/first"), "SAME", x.shape)
        if i == 1:
            return updates, signal_below + delta
        updates[f"stages_{i}/shortcut"] = np.einsum("byxc,byxd->cd", subsample(x), delta)[None, None]
        signal_below[:, ::2, ::2] += delta @ backward(f"stages_{i}/shortcut")[0, 0].T
        return updates, signal_below

    def updates(self, backward, signals=None):
        """Returns all updates.

        Args:
          backward: the backward kernel of a layer by its name.
          signals: by index of the hidden layer; None: the signal is sent back from the readout.
        """
        top = self.error @ backward("readout/linear").T
        signal = np.broadcast_to(top[:, None, None] / np.prod(self.hidden[-1].shape[1:3]), self.hidden[-1].shape)
        updates = {"readout/linear": self.average.T @ self.error}
        for i in (3, 2, 1):
            block_updates, signal_below = self.block(i, signal if signals is None else signals[i], backward)
            updates |= block_updates
            signal = signal_below
        delta = (signal if signals is None else signals[0]) * tanh_derivative(self.hidden[0])
        updates["stages_0/linear"] = kernel_update(self.x, delta, self.kernel("stages_0/linear"), "SAME")
        return updates


RULES_ON_RESIDUAL_NETWORKS = {
    bp: {},
    fa: {"init_feedback": layerwise()},
    dfa: {"init_feedback": direct()},
}


@pytest.mark.parametrize("factory", [pytest.param(bp, marks=pytest.mark.slow), fa, dfa])
def test_residual_networks(factory):
    network = resnet((8, 8, 3), 4, **RESNET)
    params = to_float64(filled(jax.eval_shape(network.init, jax.random.key(1))))
    batch = random_batch((8, 8, 3), dtype=np.float64)
    reference = ResidualReference(params, batch)
    rule = compiled(factory(network, LOSS, **RULES_ON_RESIDUAL_NETWORKS[factory]))
    feedback = to_float64(filled(jax.eval_shape(rule.init, jax.random.key(2))[1], seed=1))
    expected = {
        bp: lambda: reference.updates(reference.kernel),
        fa: lambda: reference.updates(lambda name: np.asarray(feedback[name])),
        dfa: lambda: reference.updates(reference.kernel, projected(reference.error, feedback, network)),
    }[factory]()
    updates = rule.updates(params, feedback, batch)
    assert set(expected) == set(network.kernel_shapes)
    for name, update in expected.items():
        np.testing.assert_allclose(kernel(updates, name), update, rtol=1e-9, atol=1e-12, err_msg=name)
