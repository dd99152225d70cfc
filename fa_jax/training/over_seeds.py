"""Compilation of a function of one seed for all seeds: sharded over devices, and vmapped or sequential on each."""

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec

from fa_jax.core import Rule
from fa_jax.network import Network

VMAP_MAX_BYTES = 2**21
"""The size of one seed's params, in bytes, up to which a CPU trains the seeds of a device vmapped, if all layers are
dense. Larger ones would evict each other from its caches at every step, and train faster sequentially."""


def is_vmapped(rule: Rule, network: Network, device: jax.Device) -> bool:
    """Returns whether the seeds on a device train faster vmapped than sequentially."""
    params, _ = jax.eval_shape(rule.init, jax.random.key(0))
    small = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)) <= VMAP_MAX_BYTES
    # Vmapped over their weights, convolutions become grouped convolutions, which are slow on a CPU.
    dense = all(len(kernel.shape) == 2 for kernel in network.kernels.values())
    return device.platform != "cpu" or (small and dense)


def over_seeds(
    function: Callable,
    mesh: jax.sharding.Mesh,
    vmapped: bool,
    in_axes: tuple[int | None, ...],
    donate: tuple[int, ...] = (),
) -> Callable:
    """Compiles a function of one seed for all seeds; arguments with axis 0 have a leading axis of seeds.

    The seeds on a device run vmapped, or else sequentially.
    """

    def sequential(*arguments):
        per_seed = [a for a, axis in zip(arguments, in_axes, strict=True) if axis == 0]

        def run_seed(seed_arguments):
            remaining = iter(seed_arguments)
            return function(*(next(remaining) if axis == 0 else a for a, axis in zip(arguments, in_axes, strict=True)))

        return jax.lax.map(run_seed, tuple(per_seed))

    sharded = jax.shard_map(
        jax.vmap(function, in_axes) if vmapped else sequential,
        mesh=mesh,
        in_specs=tuple(PartitionSpec("seeds") if axis == 0 else PartitionSpec() for axis in in_axes),
        out_specs=PartitionSpec("seeds"),
        axis_names={"seeds"},  # the axis `batch` is left to the compiler
        check_vma=False,  # checks replicated outputs, and there are none
    )
    return jax.jit(sharded, donate_argnums=donate)
