"""On convolutional and residual networks too, every kind of rule equals its equations, in float64, without autodiff."""

import functools

import jax
import numpy as np
import pytest

from fa_jax.feedback import backward_kernels
from fa_jax.losses import squared_error
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
from tests.conftest import random_batch
from tests.rules.images import back, convolve, kernel_update, max_pool, unpool
from tests.rules.test_against_reference import double

pytestmark = pytest.mark.usefixtures("float64")

LOSS = squared_error(output="linear", derivative="exact").value
DKP = functools.partial(direct_kolen_pollack, zero=False)
FEEDBACK = {"distribution": "normal", "scale": 0.7, "kept": 0.8}
INITIAL = {"init": "fan_normal", "init_scale": 1.2, "kept": 1.0, "bias_init": "uniform", "bias_scale": 0.3}
CNN = {
    "topology": "conv4x3p3-conv5x3v-6",
    "shared_weights": True,
    "activation": "tanh",
    "biases": True,
    "norm": "none",
    "pooling": "max",
    "pool_stride": 2,
    "norm_dense": False,
    "hidden_ends": "after_pooling",
    "dropout": 0.0,
    "input_dropout": 0.0,
    **INITIAL,
}
NAMES = ["stages_0/linear", "stages_1/linear", "stages_2/linear", "readout/linear"]


def leaf(tree, name, which="kernel"):
    for part in name.split("/"):
        tree = tree[part]
    return np.asarray(tree[which])


def slope(h):
    return 1 - h**2


class ByHand:
    """The forward pass of the network above, and the updates that follow from the errors at its pre-activations."""

    def __init__(self, params, batch):
        self.kernels = [leaf(params, name) for name in NAMES]
        biases = [leaf(params, name, "bias") for name in NAMES]
        self.x = np.asarray(batch.inputs)
        self.h0 = np.tanh(convolve(self.x, self.kernels[0], biases[0], "SAME"))
        self.p0, self.places = max_pool(self.h0, 3, 2)
        self.h1 = np.tanh(convolve(self.p0, self.kernels[1], biases[1], "VALID"))
        self.flat = self.h1.reshape(len(self.x), -1)
        self.h2 = np.tanh(self.flat @ self.kernels[2] + biases[2])
        self.error = (self.h2 @ self.kernels[3] + biases[3] - np.asarray(batch.targets)) / len(self.x)

    def deltas(self, signals):
        """Errors at the pre-activations, given the signals at the three `Hidden`s: after pooling in the first."""
        s0, s1, s2 = signals
        unpooled = unpool(s0, self.places, self.h0.shape, 3, 2)
        return [unpooled * slope(self.h0), s1 * slope(self.h1), s2 * slope(self.h2), self.error]

    def deltas_backward(self, backward):
        """The same with every signal sent back through a kernel of the next layer."""
        s2 = self.error @ backward[3].T
        s1 = ((s2 * slope(self.h2)) @ backward[2].T).reshape(self.h1.shape)
        s0 = back(s1 * slope(self.h1), backward[1], "VALID", self.p0.shape)
        return self.deltas([s0, s1, s2])

    def check(self, got, deltas):
        weights = [
            kernel_update(self.x, deltas[0], self.kernels[0], "SAME"),
            kernel_update(self.p0, deltas[1], self.kernels[1], "VALID"),
            self.flat.T @ deltas[2],
            self.h2.T @ deltas[3],
        ]
        for name, weight, delta in zip(NAMES, weights, deltas, strict=True):
            np.testing.assert_allclose(leaf(got, name), weight, rtol=1e-9, atol=1e-12, err_msg=name)
            bias = delta.reshape(-1, delta.shape[-1]).sum(0)
            np.testing.assert_allclose(leaf(got, name, "bias"), bias, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.fixture
def case():
    network = cnn((8, 8, 2), 4, **CNN)
    params = double(network.init(jax.random.key(1)))
    batch = random_batch((8, 8, 2), dtype=np.float64)
    return network, params, batch, ByHand(params, batch)


def test_bp_through_convolution_and_pooling(case):
    network, params, batch, truth = case
    truth.check(bp(network, LOSS).updates(params, (), batch), truth.deltas_backward(truth.kernels))


def test_fa_through_convolution_and_pooling(case):
    network, params, batch, truth = case
    rule = fa(network, LOSS, **FEEDBACK)
    feedback = double(rule.init(jax.random.key(2))[1])
    kernels = [None, *(np.asarray(feedback[name]) for name in NAMES[1:])]
    truth.check(rule.updates(params, feedback, batch), truth.deltas_backward(kernels))


def test_usf_s_magnitude_is_that_of_the_window(case):
    network, params, batch, truth = case
    fans = [3 * 3 * 2, 3 * 3 * 4, truth.flat.shape[1], 6]
    kernels = [np.sign(w) / np.sqrt(fan) for w, fan in zip(truth.kernels, fans, strict=True)]
    got = usf(network, LOSS, distribution="fan_normal", scale=1.0).updates(params, (), batch)
    truth.check(got, truth.deltas_backward(kernels))


@pytest.mark.parametrize("factory", [frsf, brsf])
def test_signs_are_those_of_the_weights_on_the_way_through_convolutions(case, factory):
    network, params, batch, truth = case
    rule = factory(network, LOSS, **FEEDBACK)
    feedback = double(rule.init(jax.random.key(2))[1])
    if factory is brsf:
        feedback = backward_kernels(network, fan="forward_fan", **FEEDBACK)(batch.key, params)
    kernels = [None, *(np.abs(feedback[n]) * np.sign(w) for n, w in zip(NAMES[1:], truth.kernels[1:], strict=True))]
    got = rule.updates(params, feedback if factory is frsf else (), batch)
    truth.check(got, truth.deltas_backward(kernels))


def test_kolen_pollack_s_feedback_takes_the_updates_of_the_kernels(case):
    network, params, batch, truth = case
    rule = kolen_pollack(network, LOSS, **FEEDBACK)
    feedback = double(rule.init(jax.random.key(2))[1])
    learned = rule.learn(params, feedback, batch, rule.updates(params, feedback, batch))
    deltas = truth.deltas_backward([None, *(np.asarray(feedback[name]) for name in NAMES[1:])])
    expected = kernel_update(truth.p0, deltas[1], truth.kernels[1], "VALID")
    np.testing.assert_allclose(learned[NAMES[1]], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(learned[NAMES[2]], truth.flat.T @ deltas[2], rtol=1e-9, atol=1e-12)
    assert set(learned) == set(NAMES[1:])


def test_direct_kolen_pollack_learns_the_product_of_error_and_pooled_activations(case):
    network, params, batch, truth = case
    rule = DKP(network, LOSS, **FEEDBACK)
    feedback = double(rule.init(jax.random.key(2))[1])
    learned = rule.learn(params, feedback, batch, rule.updates(params, feedback, batch))
    for name, h in zip(network.hiddens, (truth.p0, truth.h1, truth.h2), strict=True):
        np.testing.assert_allclose(learned[name], np.tensordot(truth.error, h, (0, 0)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("factory", [dfa, drtp, sdfa, DKP])
def test_direct_signals_reach_the_places_of_the_maxima_alone(case, factory):
    network, params, batch, truth = case
    rule = factory(network, LOSS, **FEEDBACK)
    feedback = double(rule.init(jax.random.key(2))[1])
    examples = len(truth.x)
    sent = {drtp: -np.asarray(batch.targets) / examples, sdfa: np.sign(truth.error) / examples}
    teaching = sent.get(factory, truth.error)
    signals = [np.tensordot(teaching, np.asarray(feedback[name]), 1) for name in network.hiddens]
    assert [s.shape[1:] for s in signals] == [(3, 3, 4), (1, 1, 5), (6,)]
    truth.check(rule.updates(params, feedback, batch), truth.deltas(signals))


def test_a_hidden_layer_may_end_before_the_pooling():
    network = cnn((8, 8, 2), 4, **{**CNN, "hidden_ends": "before_pooling"})
    params = double(network.init(jax.random.key(1)))
    batch = random_batch((8, 8, 2), dtype=np.float64)
    truth = ByHand(params, batch)
    rule = dfa(network, LOSS, **FEEDBACK)
    feedback = double(rule.init(jax.random.key(2))[1])
    s0, s1, s2 = (np.tensordot(truth.error, np.asarray(feedback[name]), 1) for name in network.hiddens)
    assert s0.shape[1:] == (8, 8, 4)
    _, *rest = truth.deltas([np.zeros_like(truth.p0), s1, s2])
    truth.check(rule.updates(params, feedback, batch), [s0 * slope(truth.h0), *rest])


RESIDUAL = {
    "depth": 8,
    "width": 2,
    "activation": "tanh",
    "biases": False,
    "norm": "none",
    "normed_shortcuts": True,
    "stage": "block",
    "dense": [],
    **INITIAL,
}


def strided(x):
    return x[:, ::2, ::2]


class ResidualByHand:
    """ResNet-8 without normalisation: a stem, one block that keeps the shape, two that halve the image."""

    def __init__(self, params, batch):
        self.kernel = lambda name: leaf(params, name)
        self.hidden = [np.tanh(convolve(np.asarray(batch.inputs), leaf(params, "stages_0/linear"), 0, "SAME"))]
        self.inner = [None]
        for i in (1, 2, 3):
            x, stride = self.hidden[-1], 1 if i == 1 else 2
            a = convolve(x, self.kernel(f"stages_{i}/first"), 0, "SAME")
            # A padded convolution of stride 2 on an even image starts one place further in.
            h = np.tanh(a if stride == 1 else a[:, 1::2, 1::2])
            self.inner.append(h)
            out = convolve(h, self.kernel(f"stages_{i}/second"), 0, "SAME")
            out = out + (x if stride == 1 else strided(x) @ self.kernel(f"stages_{i}/shortcut")[0, 0])
            self.hidden.append(np.tanh(out))
        self.average = self.hidden[-1].mean((1, 2))
        logits = self.average @ self.kernel("readout/linear")
        self.error = (logits - np.asarray(batch.targets)) / len(logits)
        self.x = np.asarray(batch.inputs)

    def block(self, i, signal, backward):
        """Updates of block i by the signal at its `Hidden`, and the signal at its input."""
        x, h = self.hidden[i - 1], self.inner[i]
        delta = signal * slope(self.hidden[i])
        second = kernel_update(h, delta, self.kernel(f"stages_{i}/second"), "SAME")
        inner = back(delta, backward(f"stages_{i}/second"), "SAME", h.shape) * slope(h)
        if i > 1:
            spread = np.zeros((*x.shape[:3], h.shape[-1]))
            spread[:, 1::2, 1::2] = inner
            inner = spread
        updates = {
            f"stages_{i}/second": second,
            f"stages_{i}/first": kernel_update(x, inner, self.kernel(f"stages_{i}/first"), "SAME"),
        }
        down = back(inner, backward(f"stages_{i}/first"), "SAME", x.shape)
        if i == 1:
            return updates, down + delta
        updates[f"stages_{i}/shortcut"] = np.einsum("byxc,byxd->cd", strided(x), delta)[None, None]
        down[:, ::2, ::2] += delta @ backward(f"stages_{i}/shortcut")[0, 0].T
        return updates, down

    def updates(self, backward, signals=None):
        """All updates; the signals are sent back through `backward`, or else given for each `Hidden`."""
        top = self.error @ backward("readout/linear").T
        signal = np.broadcast_to(top[:, None, None] / np.prod(self.hidden[-1].shape[1:3]), self.hidden[-1].shape)
        updates = {"readout/linear": self.average.T @ self.error}
        for i in (3, 2, 1):
            more, down = self.block(i, signal if signals is None else signals[i], backward)
            updates |= more
            signal = down
        delta = (signal if signals is None else signals[0]) * slope(self.hidden[0])
        updates["stages_0/linear"] = kernel_update(self.x, delta, self.kernel("stages_0/linear"), "SAME")
        return updates


@pytest.mark.parametrize("name", ["bp", "fa", "dfa"])
def test_residual_networks(name):
    network = resnet((8, 8, 3), 4, **RESIDUAL)
    params = double(network.init(jax.random.key(1)))
    batch = random_batch((8, 8, 3), dtype=np.float64)
    truth = ResidualByHand(params, batch)
    if name == "bp":
        got, expected = bp(network, LOSS).updates(params, (), batch), truth.updates(truth.kernel)
    else:
        rule = (fa if name == "fa" else dfa)(network, LOSS, **FEEDBACK)
        feedback = double(rule.init(jax.random.key(2))[1])
        got = rule.updates(params, feedback, batch)
        if name == "fa":
            expected = truth.updates(lambda one: np.asarray(feedback[one]))
        else:
            signals = [np.tensordot(truth.error, np.asarray(feedback[one]), 1) for one in network.hiddens]
            expected = truth.updates(truth.kernel, signals)
    assert set(expected) == set(network.kernels)
    for kernel, update in expected.items():
        np.testing.assert_allclose(leaf(got, kernel), update, rtol=1e-9, atol=1e-12, err_msg=kernel)
