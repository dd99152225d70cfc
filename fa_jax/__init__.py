"""fa_jax: learning rules as pure functions `(params, feedback, batch) -> updates`, compared from the command line.

Read `fa_jax.core` first: it holds the contract that everything else keeps.
"""

from importlib.metadata import version

__version__ = version("fa-jax")
