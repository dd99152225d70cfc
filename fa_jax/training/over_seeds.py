"""Compilation of a function of one seed for all seeds: sharded over devices, and vmapped or sequential on each."""

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec


def over_seeds(
    function: Callable,
    mesh: jax.sharding.Mesh,
    *,
    vmapped: bool,
    per_seed: int,
    shared: int = 0,
    donate: tuple[int, ...] = (),
) -> Callable:
    """Compiles a function of one seed for all seeds.

    Args:
      function: takes the arguments of one seed.
      mesh: of devices, with the axis `seeds`.
      vmapped: whether the seeds of a device run at once; else they run one after another.
      per_seed: the number of its first arguments that get a leading axis of seeds.
      shared: the number of arguments behind them, which are the same for all seeds.
      donate: arguments whose buffers are reused for the results.
    """

    def all_seeds(*arguments):
        seed_arguments, shared_arguments = arguments[:per_seed], arguments[per_seed:]

        def one_seed(arguments_of_seed):
            return function(*arguments_of_seed, *shared_arguments)

        return jax.vmap(one_seed)(seed_arguments) if vmapped else jax.lax.map(one_seed, seed_arguments)

    sharded = jax.shard_map(
        all_seeds,
        mesh=mesh,
        in_specs=(PartitionSpec("seeds"),) * per_seed + (PartitionSpec(),) * shared,
        out_specs=PartitionSpec("seeds"),
        axis_names={"seeds"},  # XLA splits the batch over the other axis of the mesh, `batch`
        check_vma=False,  # would check that results without the axis `seeds` are equal on all devices; all have it
    )
    return jax.jit(sharded, donate_argnums=donate)
