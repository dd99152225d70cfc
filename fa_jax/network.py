"""`Network`: a Flax module as pure functions of its params, with names for its hidden layers and kernels."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from fa_jax.core import Batch, LossFunction, Named, PyTree
from fa_jax.primitives import cross_feedback, fans, is_linear_call

STATISTICS = "batch_stats"
"""Flax's collection of the running statistics that norms keep."""


class Activation(NamedTuple):
    """The shape of one hidden layer's activation, `[*stack, batch, *shape]`.

    `stack` is `()`, or `(depth,)` where equal layers are scanned.
    """

    stack: tuple[int, ...]
    shape: tuple[int, ...]


class Kernel(NamedTuple):
    """The shape of one linear layer's kernel, `[*stack, *shape]`, and its fans."""

    stack: tuple[int, ...]
    shape: tuple[int, ...]
    forward_fan: int
    """How many numbers one output of the layer sums over."""
    backward_fan: int
    """How many sum into one component of the signal below: the layer's outputs, times the size of the window."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A Flax module and the shape of its input, as pure functions of params.

    Any module made of stock Flax layers will do; one that marks its hidden layers with `networks.chain.Hidden` can be
    taught directly, and one that is a `networks.chain.Chain` stage by stage. Hidden layers and kernels are named by
    their place in the module, as in `stages_0/linear`, and listed in the order of the forward pass.
    """

    module: nn.Module
    input_shape: tuple[int, ...]

    def init(self, key: jax.Array) -> PyTree:
        """Draws the params; leaves are float32.

        Running statistics, which a norm keeps in Flax's collection `batch_stats`, are among them, beside the norm's
        own params: no update of a rule moves them (theirs are zero), `follow` does.
        """
        variables = self.module.init(key, jnp.zeros((1, *self.input_shape)))
        return _merge(variables["params"], variables.get(STATISTICS, {}))

    def apply(
        self,
        params: PyTree,
        inputs: jax.Array,
        *,
        signals: Named | None = None,
        feedback: Named | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the logits, `[batch, outputs]`.

        Args:
          params: as from `init`.
          inputs: `[batch, *input_shape]`.
          signals: what each hidden layer is taught in place of its gradient, named like `hiddens`; None: its gradient.
          feedback: what the backward pass crosses in place of a layer's own kernel, named like `kernels`, not
            necessarily all of them; None: their own.
          key: draws the dropout, and has norms take the statistics of the batch; None: no dropout, and the running
            statistics.
        """
        return self.forward(params, inputs, signals=signals, feedback=feedback, key=key)[0]

    def forward(
        self,
        params: PyTree,
        inputs: jax.Array,
        *,
        signals: Named | None = None,
        feedback: Named | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, Named]:
        """Returns the logits, and the activations of the hidden layers; arguments as for `apply`."""
        backward = {"signal": _nest(signals or {}, "h"), "feedback": _nest(feedback or {}, "kernel")}
        logits, state = self._run(params, inputs, key=key, mutable=("hidden",), **backward)
        return logits, pick(state.get("hidden", {}), "h")

    def follow(self, params: PyTree, batch: Batch) -> PyTree:
        """Returns the params with running statistics that have taken in a batch; all else is as it was."""
        if not self.statistics:
            return params
        _, state = self._run(params, batch.inputs, key=batch.key)
        return _merge(params, state[STATISTICS])

    def call(self, method: str, params: PyTree, *arguments: Any, key: jax.Array | None = None) -> Any:
        """Returns what another method of the module makes of arguments; `params` and `key` as for `apply`."""
        return self._run(params, *arguments, key=key, method=method)[0]

    def note_linear(
        self,
        params: PyTree,
        inputs: jax.Array,
        note: Callable[[nn.Module, jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
        rngs: Mapping[str, jax.Array],
    ) -> Named:
        """Returns what `note` makes of each linear layer, named like `kernels`, as the network runs.

        Args:
          params, inputs: as for `apply`.
          note: `(layer, x, y) -> (y, noted)`, given a bound layer with what goes in and out; the network goes on with
            the y it returns.
          rngs: the keys of Flax's streams; without one named `dropout` there is none.
        """

        def intercept(layer, args, kwargs, context):
            if not is_linear_call(context) or "/".join(context.module.path) not in self.kernels:
                return layer(*args, **kwargs)
            (x,) = (*args, *kwargs.values())
            y, noted = note(context.module, x, layer(*args, **kwargs))
            context.module.sow("noted", "it", noted, init_fn=lambda: None, reduce_fn=lambda _, new: new)
            return y

        with nn.intercept_methods(intercept):
            _, state = self.module.apply(self._collections(params), inputs, rngs=dict(rngs), mutable=["noted"])
        return pick(state["noted"], "it")

    def weights(self, params: PyTree) -> Named:
        """Returns the kernels out of a tree like the params."""
        chosen = pick(params, "kernel")
        return {name: chosen[name] for name in self.kernels}

    def nudge(self, params: PyTree, nudges: Named) -> PyTree:
        """Returns params with which the network adds `nudges`, named and shaped like the hiddens, to its activations.

        A zero nudge changes nothing, and its entry in a rule's updates is the learning signal that the rule sends to
        that hidden layer.
        """
        flat = traverse_util.flatten_dict(_nest(nudges, "nudge"))
        return traverse_util.unflatten_dict({**traverse_util.flatten_dict(params), **flat})

    def nudges(self, updates: PyTree) -> Named:
        """Returns the entries of the nudges out of a tree like `nudge` makes."""
        chosen = pick(updates, "nudge")
        return {name: chosen[name] for name in self.hiddens}

    @functools.cached_property
    def statistics(self) -> frozenset[tuple[str, ...]]:
        """The places of the running statistics in the params."""
        shapes = jax.eval_shape(self.module.init, jax.random.key(0), jnp.zeros((1, *self.input_shape)))
        return frozenset(traverse_util.flatten_dict(shapes.get(STATISTICS, {})))

    @functools.cached_property
    def hiddens(self) -> dict[str, Activation]:
        """The shapes of the hidden layers, one entry for each or for a scanned stack of them."""
        two, three = self._trace(2).hiddens, self._trace(3).hiddens

        def place(a, b):
            axis = next(i for i, (m, n) in enumerate(zip(a, b, strict=True)) if m != n)
            return Activation(a[:axis], a[axis + 1 :])

        return {name: place(two[name], three[name]) for name in two}

    def in_order(self, hiddens: Named) -> list[jax.Array]:
        """Returns the activations that `forward` makes layer by layer, scanned stacks taken apart."""
        return [layer for name, h in self.hiddens.items() for layer in (hiddens[name] if h.stack else [hiddens[name]])]

    @functools.cached_property
    def kernels(self) -> dict[str, Kernel]:
        """The shapes of the linear layers' kernels, one entry for each or for a scanned stack of them."""
        return self._trace(2).kernels

    @functools.cached_property
    def outputs(self) -> int:
        """The number of outputs."""
        return self._trace(2).outputs

    def _run(self, params, *arguments, key, mutable=(), method=None, **collections):
        """Applies the module, its dense layers transported; returns what it does and the collections it changes."""
        rngs = {} if key is None else {"dropout": key}
        variables = {**self._collections(params), **collections}
        with nn.intercept_methods(cross_feedback):
            return self.module.apply(variables, *arguments, rngs=rngs, mutable=[STATISTICS, *mutable], method=method)

    def _collections(self, params: PyTree) -> dict[str, PyTree]:
        """Params as the collections that Flax keeps them in."""
        flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(params)
        parts = {"params": {}, STATISTICS: {}}
        for path, leaf in flat.items():
            parts[STATISTICS if path in self.statistics else "params"][path] = leaf
        return {name: traverse_util.unflatten_dict(part) for name, part in parts.items()}

    def _trace(self, batch: int) -> "_Trace":
        """Runs the network on shapes alone, and notes what it meets on the way."""
        params = jax.eval_shape(self.init, jax.random.key(0))
        whole = {name: leaf.shape for name, leaf in pick(params, "kernel").items()}
        kernels, hiddens, outputs = {}, {}, []

        def note(layer, args, kwargs, context):
            name = "/".join(context.module.path)
            if is_linear_call(context) and name in whole:
                shape = context.module.variables["params"]["kernel"].shape
                kernels[name] = Kernel(
                    whole[name][: len(whole[name]) - len(shape)], shape, *fans(context.module, shape)
                )
            return layer(*args, **kwargs)

        def run(params, inputs):
            with nn.intercept_methods(note):
                logits, activations = self.forward(params, inputs)
            # Noted here and not returned: a returned dict comes back sorted by name.
            hiddens.update({name: h.shape for name, h in activations.items()})
            outputs.append(logits.shape[-1])

        jax.eval_shape(run, params, jax.ShapeDtypeStruct((batch, *self.input_shape), jnp.float32))
        return _Trace(kernels, hiddens, outputs[0])


class _Trace(NamedTuple):
    kernels: dict[str, Kernel]
    hiddens: dict[str, tuple[int, ...]]
    outputs: int


def gradient(network: Network, loss: LossFunction, params: PyTree, batch: Batch, **backward: Named) -> PyTree:
    """Returns the gradient of the loss on a batch, or what takes its place.

    Args:
      network, loss, params, batch: as everywhere.
      **backward: `signals` or `feedback` as for `Network.apply`; none: the true gradient.
    """

    def of(params):
        return loss(network.apply(params, batch.inputs, key=batch.key, **backward), batch.targets)

    return jax.grad(of)(params)


def count(network: Network, params: PyTree) -> int:
    """Returns how many numbers the params hold, running statistics aside; shapes will do."""
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(params)
    return sum(math.prod(leaf.shape) for path, leaf in flat.items() if path not in network.statistics)


def pick(tree: PyTree, leaf: str) -> Named:
    """Returns the leaves of that name out of a Flax collection, under the names of their modules."""
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(tree)
    return {"/".join(path[:-1]): value for path, value in flat.items() if path[-1] == leaf}


def _merge(tree: PyTree, other: PyTree) -> PyTree:
    """The leaves of both trees; where both have one, the second's."""
    return traverse_util.unflatten_dict({**traverse_util.flatten_dict(tree), **traverse_util.flatten_dict(other)})


def _nest(named: Named, leaf: str) -> PyTree:
    """The inverse of `pick`."""
    return traverse_util.unflatten_dict({(*filter(None, name.split("/")), leaf): x for name, x in named.items()})
