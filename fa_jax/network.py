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

from fa_jax.core import Batch, LayerArrays, PyTree, Stream, stream
from fa_jax.primitives import is_linear_call, use_feedback

STATISTICS = "batch_stats"
"""Flax's collection for the running statistics of norms."""


class ActivationShape(NamedTuple):
    """The shape of one hidden layer's activation, `[*stack, batch, *shape]`.

    `stack` is `()`, or `(depth,)` for a scanned stack of equal layers.
    """

    stack: tuple[int, ...]
    shape: tuple[int, ...]


class KernelShape(NamedTuple):
    """The shape of one linear layer's kernel, `[*stack, *shape]`, and its fans."""

    stack: tuple[int, ...]
    shape: tuple[int, ...]
    fan_in: int
    """The number of inputs that one output sums."""
    fan_out: int
    """The number of outputs that one input reaches, all positions of the window included."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A Flax module and the shape of its input, as pure functions of params.

    Any module made of Flax's own layers works. Direct feedback needs hidden layers marked by `networks.chain.Hidden`;
    stage-wise rules need a `networks.chain.Chain`. Hidden layers and kernels are named by their path in the module,
    such as `stages_0/linear`, and listed in the order of the forward pass.
    """

    module: nn.Module
    input_shape: tuple[int, ...]

    def init(self, key: jax.Array, *extra_inputs: jax.Array, method: str | None = None) -> PyTree:
        """Draws the params of a seed.

        Args:
          key: the key of a seed, `jax.random.key(seed)`; its stream INIT is used.
          *extra_inputs: arguments after the inputs, if `method` takes more.
          method: name of a method of the module that uses every param; None: the forward pass.

        Returns:
          A tree of float32 arrays. The running statistics of norms (Flax's collection `batch_stats`) are among them,
          beside the norm's own params. Rules give them zero updates; `update_statistics` updates them.
        """
        inputs = jnp.zeros((1, *self.input_shape))
        variables = self.module.init(stream(key, Stream.INIT), inputs, *extra_inputs, method=method)
        return _merge(variables["params"], variables.get(STATISTICS, {}))

    def apply(self, params: PyTree, inputs: jax.Array, **options: Any) -> jax.Array:
        """Returns the logits, `[batch, outputs]`; arguments as for `forward`.

        With params and inputs alone, this is the module's own forward pass.
        """
        return self.forward(params, inputs, **options)[0]

    def forward(
        self,
        params: PyTree,
        inputs: jax.Array,
        *,
        key: jax.Array | None = None,
        signals: LayerArrays | None = None,
        feedback: LayerArrays | None = None,
        perturbations: LayerArrays | None = None,
    ) -> tuple[jax.Array, LayerArrays]:
        """Returns the logits, `[batch, outputs]`, and the activations of the hidden layers, shaped like `hiddens`.

        Args:
          params: as from `init`.
          inputs: `[batch, *input_shape]`.
          key: draws the dropout, and makes norms use the statistics of the batch. None: no dropout, running statistics.
          signals: arrays that replace dL/dh of hidden layers in the backward pass; named like `hiddens`.
          feedback: arrays that replace the kernels of linear layers in the backward pass; named like `kernels`, not
            necessarily all of them.
          perturbations: arrays that are added to the activations of hidden layers; named like `hiddens`.
        """
        collections = {"signal": _unflatten(signals or {}, "h"), "feedback": _unflatten(feedback or {}, "kernel")}
        options = {"key": key, "perturbations": perturbations, "mutable": ("hidden",)}
        logits, state = self._run(params, inputs, **options, **collections)
        return logits, leaves_named(state.get("hidden", {}), "h")

    def call(
        self,
        method: str,
        params: PyTree,
        *arguments: Any,
        key: jax.Array | None = None,
        perturbations: LayerArrays | None = None,
    ) -> Any:
        """Returns the result of another method of the module; keyword arguments as for `forward`."""
        return self._run(params, *arguments, key=key, perturbations=perturbations, method=method)[0]

    def update_statistics(self, params: PyTree, batch: Batch) -> PyTree:
        """Returns the params with running statistics updated by a batch, by one more forward pass."""
        if not self.statistics:
            return params
        _, state = self._run(params, batch.inputs, key=batch.key)
        return _merge(params, state[STATISTICS])

    def observe_linear(
        self,
        params: PyTree,
        inputs: jax.Array,
        observe: Callable[[nn.Module, jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
        rngs: Mapping[str, jax.Array],
    ) -> LayerArrays:
        """Runs the network and collects an observation from each linear layer.

        Args:
          params, inputs: as for `forward`.
          observe: `(layer, x, y) -> (y, observation)` for a bound layer with input x and output y; the network goes on
            with the returned y.
          rngs: keys by the name of Flax's random streams; dropout needs `dropout`.

        Returns:
          The observations, named like `kernels`.
        """

        def intercept(layer, args, kwargs, context):
            if not is_linear_call(context) or "/".join(context.module.path) not in self.kernels:
                return layer(*args, **kwargs)
            (x,) = (*args, *kwargs.values())
            y, observation = observe(context.module, x, layer(*args, **kwargs))
            context.module.sow("observed", "value", observation, init_fn=lambda: observation, reduce_fn=_latest)
            return y

        with nn.intercept_methods(intercept):
            _, state = self.module.apply(self._collections(params), inputs, rngs=dict(rngs), mutable=["observed"])
        return leaves_named(state["observed"], "value")

    def weights(self, params: PyTree) -> LayerArrays:
        """Returns the kernels of a tree like the params."""
        chosen = leaves_named(params, "kernel")
        return {name: chosen[name] for name in self.kernels}

    def hidden_zeros(self, inputs: jax.Array) -> LayerArrays:
        """Returns zeros shaped like the activations of the hidden layers, for inputs `[batch, *input_shape]`."""
        return {name: jnp.zeros((*h.stack, len(inputs), *h.shape), inputs.dtype) for name, h in self.hiddens.items()}

    @functools.cached_property
    def statistics(self) -> frozenset[tuple[str, ...]]:
        """The paths of the running statistics in the params."""
        shapes = jax.eval_shape(self.module.init, jax.random.key(0), jnp.zeros((1, *self.input_shape)))
        return frozenset(traverse_util.flatten_dict(shapes.get(STATISTICS, {})))

    @functools.cached_property
    def hiddens(self) -> dict[str, ActivationShape]:
        """The shapes of the hidden layers; a scanned stack is one entry."""
        # The axis that differs between batches of 2 and of 3 is that of the batch.
        two, three = self._trace(2).hiddens, self._trace(3).hiddens

        def split_at_batch(a, b):
            axis = next(i for i, (m, n) in enumerate(zip(a, b, strict=True)) if m != n)
            return ActivationShape(a[:axis], a[axis + 1 :])

        return {name: split_at_batch(two[name], three[name]) for name in two}

    def in_order(self, hiddens: LayerArrays) -> list[jax.Array]:
        """Returns activations layer by layer in the order of the forward pass, with scanned stacks unstacked."""
        return [layer for name, h in self.hiddens.items() for layer in (hiddens[name] if h.stack else [hiddens[name]])]

    @functools.cached_property
    def kernels(self) -> dict[str, KernelShape]:
        """The shapes of the linear layers' kernels; a scanned stack is one entry."""
        return self._trace(2).kernels

    @functools.cached_property
    def outputs(self) -> int:
        """The number of outputs."""
        return self._trace(2).outputs

    def _run(self, params, *arguments, key, perturbations=None, mutable=(), method=None, **collections):
        """Applies the module; returns its result and the collections that it changes."""
        rngs = {} if key is None else {"dropout": key}
        variables = {**self._collections(params), **collections, "perturbation": _unflatten(perturbations or {}, "h")}
        with nn.intercept_methods(use_feedback):
            return self.module.apply(variables, *arguments, rngs=rngs, mutable=[STATISTICS, *mutable], method=method)

    def _collections(self, params: PyTree) -> dict[str, PyTree]:
        """Sorts params into the collections that Flax keeps them in."""
        flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(params)
        collections = {"params": {}, STATISTICS: {}}
        for path, leaf in flat.items():
            collections[STATISTICS if path in self.statistics else "params"][path] = leaf
        return {name: traverse_util.unflatten_dict(part) for name, part in collections.items()}

    def _trace(self, batch: int) -> "_Trace":
        """Runs the network on shapes alone, and collects the layers in the order of the forward pass."""
        params = jax.eval_shape(self.init, jax.random.key(0))
        stacked_shapes = {name: leaf.shape for name, leaf in leaves_named(params, "kernel").items()}
        kernels, hiddens, outputs = {}, {}, []

        def collect(layer, args, kwargs, context):
            name = "/".join(context.module.path)
            if is_linear_call(context) and name in stacked_shapes:
                shape = context.module.variables["params"]["kernel"].shape
                stack = stacked_shapes[name][: len(stacked_shapes[name]) - len(shape)]
                kernels[name] = KernelShape(stack, shape, *_fans(context.module, shape))
            return layer(*args, **kwargs)

        def run(params, inputs):
            with nn.intercept_methods(collect):
                logits, activations = self.forward(params, inputs)
            # Collected here and not returned: JAX returns a dict sorted by name.
            hiddens.update({name: h.shape for name, h in activations.items()})
            outputs.append(logits.shape[-1])

        jax.eval_shape(run, params, jax.ShapeDtypeStruct((batch, *self.input_shape), jnp.float32))
        return _Trace(kernels, hiddens, outputs[0])


class _Trace(NamedTuple):
    kernels: dict[str, KernelShape]
    hiddens: dict[str, tuple[int, ...]]
    outputs: int


def _fans(layer: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns `(fan_in, fan_out)` of a linear layer whose kernel has this shape."""
    if isinstance(layer, nn.ConvLocal):  # [*positions, window times channels in, channels out]
        window = math.prod([layer.kernel_size] if isinstance(layer.kernel_size, int) else layer.kernel_size)
        return shape[-2], window * shape[-1]
    return math.prod(shape[:-1]), math.prod(shape) // shape[-2]


def parameter_count(network: Network, params: PyTree) -> int:
    """Returns the number of params, running statistics excluded; `params` may hold shapes instead of arrays."""
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(params)
    return sum(math.prod(leaf.shape) for path, leaf in flat.items() if path not in network.statistics)


def leaves_named(tree: PyTree, leaf: str) -> LayerArrays:
    """Returns the leaves of that name in a Flax collection, by the path of their modules."""
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(tree)
    return {"/".join(path[:-1]): value for path, value in flat.items() if path[-1] == leaf}


def _latest(old: jax.Array, new: jax.Array) -> jax.Array:
    del old
    return new


def _merge(tree: PyTree, other: PyTree) -> PyTree:
    """Returns the leaves of both trees; a leaf of the second replaces one of the first."""
    return traverse_util.unflatten_dict({**traverse_util.flatten_dict(tree), **traverse_util.flatten_dict(other)})


def _unflatten(named: LayerArrays, leaf: str) -> PyTree:
    """Returns the Flax collection with these leaves: the inverse of `leaves_named`."""
    return traverse_util.unflatten_dict({(*filter(None, name.split("/")), leaf): x for name, x in named.items()})
