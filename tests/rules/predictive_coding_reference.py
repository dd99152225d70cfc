"""Predictive coding of multilayer perceptrons in numpy: float64, no autodiff.

Layers count from 1, `h[0] = x`; weights are `[in, out]`; energies and gradients are sums over the batch.
"""

from typing import NamedTuple

import numpy as np

from tests.rules.reference import ACTIVATIONS


def softmax(a):
    q = np.exp(a - a.max(1, keepdims=True))
    return q / q.sum(1, keepdims=True)


class Reference(NamedTuple):
    """A network on a batch, with tanh units."""

    weights: list
    biases: list
    x: np.ndarray
    y: np.ndarray
    softmax_output: bool = False
    """Whether the loss is the cross-entropy; else it is half the squared error."""
    before: bool = False
    """Whether errors are before the activation function."""
    precision: float = 1.0
    activation: str = "tanh"

    def run(self, states=None, errors=None):
        """Returns what enters each linear layer, their pre-activations a_l, and the predictions mu_l.

        Without states, each layer receives the prediction below plus its error, if there are errors.
        """
        f, _ = ACTIVATIONS[self.activation]
        inputs, preactivations, predictions = [self.x], [], []
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            a = inputs[-1] @ w + b
            is_last = i == len(self.weights) - 1
            predictions.append(a if self.before or is_last else f(a))
            preactivations.append(a)
            if not is_last:
                h = states[i] if states else predictions[-1] + (errors[i] if errors else 0.0)
                inputs.append(f(h) if self.before else h)
        return inputs, preactivations, predictions

    def output_error(self, output):
        return self.precision * (self.y - (softmax(output) if self.softmax_output else output))

    def forward_states(self):
        return self.run()[2][:-1]

    def output_energy(self, output):
        if self.softmax_output:
            return -self.precision * np.sum(self.y * np.log(softmax(output)))
        return self.precision * 0.5 * np.sum((self.y - output) ** 2)

    def energy(self, states):
        *predictions, output = self.run(states)[2]
        hidden = sum(0.5 * np.sum((h - mu) ** 2) for h, mu in zip(states, predictions, strict=True))
        return hidden + self.output_energy(output)

    def errors(self, states):
        *predictions, output = self.run(states)[2]
        return [*(h - mu for h, mu in zip(states, predictions, strict=True)), self.output_error(output)]

    def received(self, i, above, preactivations, state):
        """What hidden layer i, from 0, receives from the error of the layer above: J^T e."""
        _, derivative = ACTIVATIONS[self.activation]
        if self.before:
            return (above @ self.weights[i + 1].T) * derivative(state)
        is_last = i + 2 == len(self.weights)
        return (above if is_last else above * derivative(preactivations[i + 1])) @ self.weights[i + 1].T

    def pass_down(self, errors, preactivations, states):
        """What each hidden layer receives from the error of the layer above."""
        return [self.received(i, errors[i + 1], preactivations, h) for i, h in enumerate(states)]

    def state_slopes(self, states):
        """dF/dh."""
        errors = self.errors(states)
        received = self.pass_down(errors, self.run(states)[1], states)
        return [e - r for e, r in zip(errors, received, strict=False)]

    def weight_slopes(self, states, errors):
        """dF/dW and dF/db, given what layers receive and their errors."""
        _, derivative = ACTIVATIONS[self.activation]
        inputs, preactivations, _ = self.run(states)
        deltas = list(errors)
        if not self.before:
            deltas[:-1] = [e * derivative(a) for e, a in zip(errors, preactivations[:-1], strict=False)]
        return [-h.T @ d for h, d in zip(inputs, deltas, strict=True)], [-d.sum(0) for d in deltas]

    def descend(self, slopes, start, steps, rate, momentum):
        point, velocity = start, [np.zeros_like(h) for h in start]
        for _ in range(steps):
            velocity = [momentum * v + s for v, s in zip(velocity, slopes(point), strict=True)]
            point = [h - rate * v for h, v in zip(point, velocity, strict=True)]
        return point

    def by_states(self, steps, rate, momentum):
        states = self.descend(self.state_slopes, self.forward_states(), steps, rate, momentum)
        return self.weight_slopes(states, self.errors(states))

    def error_slopes(self, errors):
        """The gradient of the energy with respect to the errors: less what backprop would send to each layer."""
        _, preactivations, predictions = self.run(errors=errors)
        signals = [self.output_error(predictions[-1])]
        for i in reversed(range(len(errors))):
            signals.insert(0, self.received(i, signals[0], preactivations, predictions[i] + errors[i]))
        return [e - s for e, s in zip(errors, signals, strict=False)]

    def by_errors(self, steps, rate, momentum):
        start = [np.zeros_like(h) for h in self.forward_states()]
        errors = self.descend(self.error_slopes, start, steps, rate, momentum)
        _, _, predictions = self.run(errors=errors)
        states = [mu + e for mu, e in zip(predictions, errors, strict=False)]
        return self.weight_slopes(states, [*errors, self.output_error(predictions[-1])])

    def by_fixed_prediction(self, steps, rate):
        states = self.forward_states()
        _, preactivations, predictions = self.run()
        top, errors = self.output_error(predictions[-1]), [np.zeros_like(h) for h in states]
        for _ in range(steps):
            received = self.pass_down([*errors, top], preactivations, states)
            errors = [e + rate * (r - e) for e, r in zip(errors, received, strict=True)]
        return self.weight_slopes(states, [*errors, top])
