"""Flax's variables, nested dicts, as arrays named by the path of their layer."""

from typing import Any

from flax import traverse_util

from fa_jax.core import LayerArrays, PyTree


def leaves_named(tree: PyTree, leaf: str) -> LayerArrays:
    """Returns the leaves of that name in a Flax collection, by the path of their modules."""
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(tree)
    return {"/".join(path[:-1]): value for path, value in flat.items() if path[-1] == leaf}


def merge(tree: PyTree, other: PyTree) -> PyTree:
    """Returns the leaves of both trees; a leaf of the second replaces one of the first."""
    return traverse_util.unflatten_dict({**traverse_util.flatten_dict(tree), **traverse_util.flatten_dict(other)})


def unflatten(named: LayerArrays, leaf: str) -> PyTree:
    """Returns the Flax collection with these leaves: the inverse of `leaves_named`."""
    # The name is empty if the module is itself the layer.
    paths = {name: (*name.split("/"), leaf) if name else (leaf,) for name in named}
    return traverse_util.unflatten_dict({paths[name]: array for name, array in named.items()})
