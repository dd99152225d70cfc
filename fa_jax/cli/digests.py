"""A digest of a Python object: of its code and its values, whatever the name of the module that holds it.

A class is described by its functions and fields, since Python does not find the source of a class of a notebook. What
is installed, such as `flax.linen.relu`, is described by its name.
"""

import ast
import dataclasses
import functools
import hashlib
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fa_jax.user.code import site_packages

KNOWN = ("fa_jax", "flax", "jax", "jaxlib", "optax", "numpy")
"""Packages that count as installed wherever they are."""
GENERATED = ("__init__", "__repr__", "__eq__", "__hash__", "__lt__", "__le__", "__gt__", "__ge__")
"""The functions that a dataclass may have written itself, from its fields."""
OF_FLAX = ("parent", "name", "scope")
"""The attributes of every Flax module, which say where it is."""
MEMBERS = (str, int, float, complex, bytes, list, tuple, dict, set, frozenset, type)
"""The types of values of a class that are described; its functions are too."""
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
PLAIN = (str, int, float, complex, bool, bytes, type(None), type(...), range, slice)


def digest_of(*values: Any) -> str:
    """Returns a digest that is the same for objects of the same code and values, also in another process."""
    return _digest(values, (), {})


def _digest(value: Any, within: tuple[Any, ...], known: dict[int, tuple[Any, str]]) -> str:
    """Returns the digest of a value.

    Args:
      value: of any type.
      within: the values that it is part of.
      known: the digests of values that were met before, by the id of the value, which is kept so that this stays its.
    """
    if id(value) in known:
        return known[id(value)][1]
    if any(value is outer for outer in within):
        return "itself"
    digest = hashlib.blake2b(digest_size=8)
    if type(value) in PLAIN:
        digest.update(repr(value).encode())
    elif name := _installed_name(value):
        digest.update(name.encode())
    elif (array := _array(value)) is not None:
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    elif isinstance(value, types.ModuleType):
        digest.update(value.__name__.encode())
    else:
        described = next((describe for kinds, describe in _KINDS if isinstance(value, kinds)), _object)
        parts = [_digest(part, (*within, value), known) for part in described(value)]
        digest.update(f"{type(value).__name__} {' '.join(parts)}".encode())
    known[id(value)] = value, digest.hexdigest()
    return digest.hexdigest()


def _array(value: Any) -> Any:
    """Returns the NumPy array of an array, or None."""
    if isinstance(value, type) or not hasattr(value, "__array__"):
        return None
    import numpy as np  # which has been imported, if there is an array

    try:
        array = np.asarray(value)
    except Exception:  # such as a key of JAX
        return None
    return None if array.dtype == object else array


def _mapping(value: Mapping) -> Iterator[Any]:
    for key, entry in value.items():
        yield from (key, entry)


def _set(value: set | frozenset) -> list[str]:
    return sorted(digest_of(entry) for entry in value)


def _partial(value: functools.partial) -> tuple[Any, ...]:
    return value.func, value.args, dict(sorted(value.keywords.items()))


def _method(value: types.MethodType) -> tuple[Any, ...]:
    return value.__func__, value.__self__


def _function(value: types.FunctionType) -> tuple[Any, ...]:
    function: Any = inspect.unwrap(value)
    if not isinstance(function, types.FunctionType):
        return (function,)
    cells = [_content(cell) for cell in function.__closure__ or ()]
    name = f"{function.__module__}." if _is_installed(function.__module__) else ""
    code = None if name else _source(function) or function.__code__
    return f"{name}{function.__qualname__}", code, function.__defaults__, function.__kwdefaults__, cells


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _source(function: types.FunctionType) -> str | None:
    """Returns the source of a function without comments; None: it is unknown, or a lambda's, which has other code."""
    if function.__name__ == "<lambda>":
        return None
    try:
        return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, TypeError, SyntaxError):
        return None


def _bytecode(value: types.CodeType) -> tuple[Any, ...]:
    return value.co_code, value.co_consts, value.co_names, value.co_varnames, value.co_freevars


def _class(value: type) -> Iterator[Any]:
    yield value.__qualname__
    yield value.__bases__
    annotations = vars(value).get("__annotations__", {})
    yield {name: _annotation(value, kind) for name, kind in annotations.items() if name not in OF_FLAX}
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name not in OF_FLAX:
                yield from (field.name, field.default, field.default_factory)
    for name, member in sorted(vars(value).items()):
        for function in _functions(member):
            is_written = name not in GENERATED or function.__code__.co_filename != "<string>"
            if is_written and not _is_installed(function.__module__):
                yield from (name, function)
        if isinstance(member, MEMBERS) and not name.startswith("_") and name not in OF_FLAX:
            yield from (name, member)


def _annotation(owner: type, kind: Any) -> str:
    text = kind.__qualname__ if isinstance(kind, type) else str(kind)
    return text.replace(f"{owner.__module__}.", "")


def _functions(member: Any) -> list[types.FunctionType]:
    """Returns the functions of a method or a property."""
    if isinstance(member, classmethod | staticmethod):
        member = member.__func__
    members = (member.fget, member.fset) if isinstance(member, property) else (member,)
    unwrapped = (inspect.unwrap(function) for function in members if callable(function))
    return [function for function in unwrapped if isinstance(function, types.FunctionType)]


def _object(value: Any) -> Iterator[Any]:
    yield type(value)
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.name not in OF_FLAX]
        yield {name: getattr(value, name, None) for name in names}
    elif "__wrapped__" in getattr(value, "__dict__", {}):  # of jax.jit, or of custom derivatives
        yield [part for part in vars(value).values() if callable(part)]
    elif hasattr(value, "__dict__"):
        yield {name: part for name, part in vars(value).items() if name[:2] != "__"}
    else:
        yield ADDRESS.sub("", repr(value))


_KINDS: list[tuple[Any, Any]] = [
    (Mapping, _mapping),
    ((list, tuple), iter),
    ((set, frozenset), _set),
    (functools.partial, _partial),
    (types.MethodType, _method),
    (types.FunctionType, _function),
    (types.CodeType, _bytecode),
    (type, _class),
]


def _installed_name(value: Any) -> str | None:
    """Returns the name of something that an installed package holds."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or not _is_installed(module):
        return None
    installed: Any = sys.modules.get(module)
    for part in name.split("."):
        installed = getattr(installed, part, None)
    return f"{module}.{name}" if installed is value else None


def _is_installed(module: str | None) -> bool:
    package = (module or "").partition(".")[0]
    if package in KNOWN or package in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(package), "__file__", None)
    return file is not None and any(Path(file).is_relative_to(folder) for folder in site_packages())
