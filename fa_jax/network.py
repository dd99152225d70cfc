"""`Network`: a Flax module as pure functions of its params, with names for its hidden layers and kernels."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from fa_jax.checks import BadOption
from fa_jax.core import BackwardKernels, Batch, LayerArrays, PyTree, Stream, stream
from fa_jax.networks.reach import crossed_kernels, is_layered
from fa_jax.networks.shapes import ActivationShape, KernelShape, Layers, fans
from fa_jax.networks.stacks import check_stacks, unstacked
from fa_jax.networks.variables import leaves_named, merge, unflatten
from fa_jax.primitives import BACKWARD, Hidden, is_linear_call, only_argument, sow_array, use_backward_kernels

STATISTICS = "batch_stats"
"""Flax's collection for the running statistics of normalisation layers."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A Flax module and the shape of its input, as pure functions of params.

    Any module made of Flax's own layers works. A rule that replaces dL/dh (direct feedback) needs the layer
    `primitives.Hidden` at the end of each hidden layer; a rule with one loss per stage needs a `networks.chain.Chain`.
    Hidden layers and kernels are named by their path in the module, such as `stages_0/linear`, and listed in the order
    of the forward pass.

    A module is in training mode while it has the random stream `dropout`: pass `not self.has_rng("dropout")` to
    `nn.Dropout` as `deterministic` and to `nn.BatchNorm` as `use_running_average`.
    """

    module: nn.Module
    input_shape: tuple[int, ...]
    is_sparse: bool = False
    """Whether weights that start at exactly 0 are removed connections, which the optimizer keeps removed."""

    def init(self, key: jax.Array, *extra_inputs: jax.Array, method: str | None = None) -> PyTree:
        """Draws the params of a seed.

        Args:
          key: the key of a seed, `jax.random.key(seed)`; its stream INIT is used.
          *extra_inputs: arguments after the inputs, if `method` takes more.
          method: name of a method of the module that uses every param; None: the forward pass.

        Returns:
          A tree of float32 arrays. The running statistics of normalisation layers (Flax's collection `batch_stats`) are
          among them, beside the layer's own params. Rules give them zero updates; `update_statistics` updates them.
        """
        inputs = jnp.zeros((1, *self.input_shape))
        variables = self.module.init(stream(key, Stream.INIT), inputs, *extra_inputs, method=method)
        return merge(variables["params"], variables.get(STATISTICS, {}))

    @functools.cached_property
    def hidden_shapes(self) -> dict[str, ActivationShape]:
        """The shapes of the hidden layers' activations; a scanned stack is one entry."""
        return self._traced.hidden_shapes

    @functools.cached_property
    def kernel_shapes(self) -> dict[str, KernelShape]:
        """The shapes of the linear layers' kernels; a scanned stack is one entry."""
        return self._traced.kernel_shapes

    @functools.cached_property
    def crossed_kernels(self) -> tuple[str, ...]:
        """The linear layers through whose kernels the error is propagated: those whose input depends on params.

        In a network without branches at its input, these are all but the first.

        Raises:
          BadOption: if the error crosses weights that are no kernel of such a layer.
        """
        return crossed_kernels(self, jax.eval_shape(self.init, jax.random.key(0)))

    @functools.cached_property
    def is_layered(self) -> bool:
        """Whether hidden states reach the layers above, and the output, through linear layers alone: nothing skips."""
        return is_layered(self)

    @functools.cached_property
    def outputs(self) -> int:
        """The number of outputs."""
        return self._traced.outputs

    @functools.cached_property
    def statistics_paths(self) -> frozenset[tuple[str, ...]]:
        """The paths of the running statistics in the params."""
        shapes = jax.eval_shape(self.module.init, jax.random.key(0), jnp.zeros((1, *self.input_shape)))
        return frozenset(traverse_util.flatten_dict(shapes.get(STATISTICS, {})))

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
        backward_kernels: BackwardKernels | None = None,
        perturbations: LayerArrays | None = None,
        states: LayerArrays | None = None,
    ) -> tuple[jax.Array, LayerArrays]:
        """Returns the logits, `[batch, outputs]`, and the activations of the hidden layers, `[*stack, batch, *shape]`.

        `signals`, `backward_kernels`, `perturbations` and `states` need not name all layers. A layer with a state sends
        nothing back, so a signal there has no effect.

        Args:
          params: as from `init`.
          inputs: `[batch, *input_shape]`.
          key: draws the dropout, and makes normalisation layers use the statistics of the batch. None: no dropout,
            running statistics.
          signals: substitutes for dL/dh of hidden layers in the backward pass, shaped like h; named like
            `hidden_shapes`. Like a gradient of the mean loss, they include the factor `1/batch`.
          backward_kernels: substitutes for the kernels of linear layers in the backward pass; named like
            `kernel_shapes`.
          perturbations: are added to the activations h of hidden layers, shaped like h; named like `hidden_shapes`.
          states: what the layers above receive in place of the activations h, shaped like h; named like
            `hidden_shapes`. The activations that are returned are those before the replacement, each computed from the
            state below.
        """
        logits, state = self._run(
            params,
            inputs,
            key=key,
            perturbations=perturbations,
            backward_kernels=backward_kernels,
            mutable=("hidden",),
            signal=unflatten(signals or {}, "h"),
            state=unflatten(states or {}, "h"),
        )
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
        if not self.statistics_paths:
            return params
        _, state = self._run(params, batch.inputs, key=batch.key)
        return merge(params, state[STATISTICS])

    def observe_linear(
        self,
        params: PyTree,
        inputs: jax.Array,
        observe: Callable[[nn.Module, jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
        rngs: Mapping[str, jax.Array],
        **arrays: LayerArrays,
    ) -> LayerArrays:
        """Runs the network and collects an observation from each linear layer, such as a function of its input.

        Args:
          params, inputs: as for `forward`.
          observe: `(layer, x, y) -> (y, observation)` for a bound layer with input x and output y; the network
            continues with the returned y.
          rngs: keys by the name of Flax's random streams; dropout needs `dropout`.
          **arrays: further Flax collections of arrays named like `kernel_shapes`, with an axis in front for a scanned
            stack; `observe` reads that of its layer by `layer.get_variable(collection, "value")`.

        Returns:
          The observations, named like `kernel_shapes`.
        """
        kernels = self.kernel_shapes  # traced before the pass below, whose interceptor would else intercept its trace

        def intercept(layer, args, kwargs, context):
            if not is_linear_call(context) or "/".join(context.module.path) not in kernels:
                return layer(*args, **kwargs)
            y, observation = observe(context.module, only_argument(args, kwargs), layer(*args, **kwargs))
            sow_array(context.module, "observed", "value", observation)
            return y

        collections = {name: unflatten(by_layer, "value") for name, by_layer in arrays.items()}
        variables = {**self._collections(params), **collections}
        with nn.intercept_methods(intercept):
            _, state = self.module.apply(variables, inputs, rngs=dict(rngs), mutable=["observed"])
        return leaves_named(state["observed"], "value")

    def kernels(self, params: PyTree) -> LayerArrays:
        """Returns the kernels, `[*stack, *shape]`, of params, or of updates, which have the same tree."""
        kernels = leaves_named(params, "kernel")
        return {name: kernels[name] for name in self.kernel_shapes}

    def kernels_in_order(self, named: Mapping[str, PyTree]) -> list[PyTree]:
        """Returns trees of `[*stack, ...]`, named like kernels, layer by layer, with scanned stacks unstacked."""
        stacks = [(named[name], kernel.stack) for name, kernel in self.kernel_shapes.items() if name in named]
        return [part for tree, stack in stacks for part in _slices(tree, *stack)]

    def hidden_zeros(self, inputs: jax.Array) -> LayerArrays:
        """Returns zeros shaped like the activations of the hidden layers, for inputs `[batch, *input_shape]`."""
        batch = len(inputs)
        return {name: jnp.zeros((*h.stack, batch, *h.shape), inputs.dtype) for name, h in self.hidden_shapes.items()}

    def hiddens_in_order(self, hiddens: LayerArrays) -> list[jax.Array]:
        """Returns activations layer by layer in the order of the forward pass, with scanned stacks unstacked."""
        return [layer for name, h in self.hidden_shapes.items() for layer in _slices(hiddens[name], *h.stack)]

    def hiddens_from_order(self, layers: Sequence[jax.Array]) -> LayerArrays:
        """Returns activations by layer, with scanned stacks stacked: the inverse of `hiddens_in_order`."""
        rest, shapes = iter(layers), self.hidden_shapes.items()
        return {n: jnp.stack([next(rest) for _ in range(*h.stack)]) if h.stack else next(rest) for n, h in shapes}

    def _run(
        self, params, *arguments, key, perturbations=None, backward_kernels=None, mutable=(), method=None, **collections
    ):
        """Applies the module; returns its result and the collections that it changes."""
        rngs = {} if key is None else {"dropout": key}
        params = merge(params, unflatten(backward_kernels or {}, BACKWARD))
        variables = {**self._collections(params), **collections, "perturbation": unflatten(perturbations or {}, "h")}
        with nn.intercept_methods(use_backward_kernels):
            return self.module.apply(variables, *arguments, rngs=rngs, mutable=[STATISTICS, *mutable], method=method)

    def _collections(self, params: PyTree) -> dict[str, PyTree]:
        """Sorts params into the collections that Flax keeps them in."""
        flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(params)
        trained = {path: leaf for path, leaf in flat.items() if path not in self.statistics_paths}
        statistics = {path: leaf for path, leaf in flat.items() if path in self.statistics_paths}
        return {"params": traverse_util.unflatten_dict(trained), STATISTICS: traverse_util.unflatten_dict(statistics)}

    @functools.cached_property
    def _traced(self) -> Layers:
        """The layers in the order of the forward pass, from one run on shapes alone."""
        params = jax.eval_shape(self.init, jax.random.key(0))
        kernels = {name: leaf.shape for name, leaf in leaves_named(params, "kernel").items()}
        kernel_shapes: dict[str, KernelShape] = {}
        layer_shapes: dict[str, tuple[int, ...]] = {}

        def collect(layer, args, kwargs, context):
            module, name = context.module, "/".join(context.module.path)
            if is_linear_call(context) and name in kernels:
                # Inside `nn.scan` a layer sees one slice of its kernel; the axes in front are those of the stack.
                shape = module.variables["params"]["kernel"].shape
                stack = kernels[name][: len(kernels[name]) - len(shape)]
                if kernels[name] != (*stack, *shape):
                    raise BadOption(
                        f"stacks the params of {name} along another axis than 0: {kernels[name]}", "nn.scan"
                    )
                kernel_shapes[name] = KernelShape(stack, shape, *fans(module, shape))
            if isinstance(module, Hidden):
                layer_shapes[name] = only_argument(args, kwargs).shape[1:]
            return layer(*args, **kwargs)

        def run(params, inputs):
            with nn.intercept_methods(collect):
                return self.forward(params, inputs)

        logits, hiddens = jax.eval_shape(run, params, jax.ShapeDtypeStruct((1, *self.input_shape), jnp.float32))
        if lost := sorted(layer_shapes.keys() - hiddens.keys()):
            raise unstacked(self.module, f"the activations of {lost[0]}")
        hidden_shapes = {
            name: ActivationShape(hiddens[name].shape[: len(hiddens[name].shape) - len(shape) - 1], shape)
            for name, shape in layer_shapes.items()
        }
        if any(h.stack for h in hidden_shapes.values()):
            check_stacks(self.module, self._collections(params), self.input_shape, hidden_shapes)
        return Layers(kernel_shapes, hidden_shapes, logits.shape[-1])


def parameter_count(network: Network, params: PyTree) -> int:
    """Returns the number of params, running statistics excluded; `params` may hold shapes instead of arrays."""
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(params)
    return sum(math.prod(leaf.shape) for path, leaf in flat.items() if path not in network.statistics_paths)


def _slices(tree: PyTree, length: int = 0) -> list[PyTree]:
    """Returns the slices of a tree, or the tree itself if it is not stacked: at length 0."""
    return [jax.tree.map(lambda a, i=i: a[i], tree) for i in range(length)] or [tree]
