"""fa_jax: learning rules as pure functions `(params, feedback, batch) -> updates`, compared over seeds.

From Python, start with `fa_jax.train`; `fa_jax.load`, `fa_jax.compare` and `fa_jax.report` read what was recorded. To
read the code, start with `fa_jax.core`: it holds the contract that everything else keeps.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fa_jax.api.read import compare, load, report
    from fa_jax.api.run import Run
    from fa_jax.api.runs import Runs
    from fa_jax.api.train import arrays, train
    from fa_jax.checks import BadOption

    __version__: str

__all__ = ["BadOption", "Run", "Runs", "arrays", "compare", "load", "report", "train"]

_MODULES = {
    "BadOption": "checks",
    "Run": "api.run",
    "Runs": "api.runs",
    "arrays": "api.train",
    "compare": "api.read",
    "load": "api.read",
    "report": "api.read",
    "train": "api.train",
}


def __getattr__(name: str) -> Any:
    """Imports a part of the API when it is used: JAX takes a second to import."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("fa-jax")
    if name not in _MODULES:
        raise AttributeError(f"module 'fa_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fa_jax.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
