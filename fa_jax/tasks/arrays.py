"""Tasks of your own arrays: images or vectors, with classes or real targets."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fa_jax.checks import BadOption, choose, integer
from fa_jax.core import Split, Task
from fa_jax.metrics.scores import ERROR, nse_metric, power
from fa_jax.tasks.preprocessing import PREPROCESSINGS, Scaling

NAMES = ("x", "y", "x_test", "y_test")
TEST_EVERY = 5
"""Where there are no test examples, every fifth example is one, from the fifth on."""
TOP = 255
"""The largest pixel value of uint8 images."""


def from_arrays(content: Mapping[str, Any], *, preprocessing: str | None, validation: int) -> Task:
    """Returns the task of arrays.

    Args:
      content: `x`, `y`, and perhaps `x_test`, `y_test`; without them every fifth example is a test example, from the
        fifth on. `x` is uint8 images, `[n, height, width]` or `[n, height, width, channels]`, or numbers `[n, ...]`.
        `y` is classes, integers `[n]` from 0 or one-hot `[n, classes]`, or real targets, floats `[n]` or
        `[n, outputs]`.
      preprocessing: of images one of `PREPROCESSINGS`; of numbers `none`, or `standardised`, by the mean and the
        standard deviation of each entry over the training examples; None: `unit` or `none`.
      validation: how many of the last training examples are held out.

    Returns:
      Images are stored as uint8, numbers as float32; classes as int32, real targets as float32 `[n, outputs]`. Runs
      are judged by the error, or by the normalised squared error of real targets.

    Raises:
      BadOption: if the arrays do not fit together; the message names the array.
    """
    arrays = {name: _array(name, content[name]) for name in NAMES if content.get(name) is not None}
    for name in ("x", "y"):
        if name not in arrays:
            raise BadOption(f"needs an array {name}")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise BadOption("needs both x_test and y_test, or neither")
    for x, y in (("x", "y"), ("x_test", "y_test")):
        if x in arrays and len(arrays[x]) != len(arrays[y]):
            raise BadOption(f"has {len(arrays[x])} examples in {x} and {len(arrays[y])} in {y}")
    images = _inputs(arrays)
    classes = _targets(arrays)
    if "x_test" not in arrays:
        in_test = np.arange(len(arrays["x"])) % TEST_EVERY == TEST_EVERY - 1
        arrays |= {f"{name}_test": arrays[name][in_test] for name in ("x", "y")}
        arrays |= {name: arrays[name][~in_test] for name in ("x", "y")}
    held_out = integer("validation", validation, least=0)
    remaining = len(arrays["x"]) - held_out
    if remaining < 1 or not len(arrays["x_test"]):
        numbers = f"{len(arrays['x'])} for training, of which {held_out} held out, {len(arrays['x_test'])} for testing"
        raise BadOption(f"has too few examples: {numbers}")
    scaling = _scaling(preprocessing, arrays["x"][:remaining], images=images)

    def prepare(stored, augment=lambda images: images):
        return scaling.finish(augment(scaling.prepare(stored)))

    def split(x, y):
        return Split(jnp.asarray(scaling.store(x)), jnp.asarray(y))

    train, held = slice(None, remaining), slice(remaining, None)
    outputs = classes or arrays["y"].shape[1]
    return Task(
        train=split(arrays["x"][train], arrays["y"][train]),
        test=split(arrays["x_test"], arrays["y_test"]),
        validation=split(arrays["x"][held], arrays["y"][held]) if held_out else None,
        prepare=prepare,
        encode=(lambda y: jax.nn.one_hot(y, outputs, dtype=jnp.float32)) if classes else (lambda y: y),
        metrics=(ERROR if classes else nse_metric(power(jnp.asarray(arrays["y"][train]))),),
        input_shape=arrays["x"].shape[1:],
        outputs=outputs,
        black=scaling.black(arrays["x"][0]) if images else None,
    )


def _array(name: str, given: Any) -> np.ndarray:
    """Returns an array of finite numbers."""
    array = np.asarray(given)
    if array.dtype == bool:
        array = array.astype(np.int32)
    if array.dtype.kind not in "iuf":
        raise BadOption(f"needs numbers in {name}; got an array of type {array.dtype}")
    if array.ndim == 0:
        raise BadOption(f"needs one entry per example in {name}; got a single number")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadOption(f"has {np.count_nonzero(~np.isfinite(array))} numbers in {name} that are not finite")
    return array


def _inputs(arrays: dict[str, np.ndarray]) -> bool:
    """Brings the inputs into the form in which they are stored; returns whether they are images."""
    x = arrays["x"]
    if x.ndim < 2:
        raise BadOption(f"needs x of shape [examples, ...]; got {list(x.shape)}")
    images = x.dtype == np.uint8 and x.ndim in (3, 4)
    for name in ("x", "x_test"):
        if name not in arrays:
            continue
        if arrays[name].shape[1:] != x.shape[1:] or (arrays[name].dtype == np.uint8) != (x.dtype == np.uint8):
            got = f"{list(arrays[name].shape[1:])} {arrays[name].dtype}"
            raise BadOption(f"has examples of {list(x.shape[1:])} {x.dtype} in x, and of {got} in x_test")
        if images:
            arrays[name] = arrays[name][..., None] if x.ndim == 3 else arrays[name]
        else:
            arrays[name] = arrays[name].astype(np.float32)
    return images


def _targets(arrays: dict[str, np.ndarray]) -> int | None:
    """Brings the targets into the form in which they are stored; returns the number of classes, if there are any."""
    names = [name for name in ("y", "y_test") if name in arrays]
    if arrays["y"].ndim > 2:
        raise BadOption(
            f"needs y of classes [examples], or of numbers [examples, outputs]; got {list(arrays['y'].shape)}"
        )
    for name in names:
        if arrays[name].shape[1:] != arrays["y"].shape[1:]:
            raise BadOption(
                f"has targets of {list(arrays['y'].shape[1:])} in y, and of {list(arrays[name].shape[1:])} in {name}"
            )
    if all(_is_one_hot(arrays[name]) for name in names):
        classes = arrays["y"].shape[1]
        arrays.update({name: arrays[name].argmax(1).astype(np.int32) for name in names})
        return classes
    whole = all(arrays[name].dtype.kind in "iu" for name in names)
    if not whole or arrays["y"].shape[1:] not in ((), (1,)):
        arrays.update({name: arrays[name].reshape(len(arrays[name]), -1).astype(np.float32) for name in names})
        return None
    arrays.update({name: arrays[name].reshape(-1) for name in names})
    for name in names:
        if len(arrays[name]) and arrays[name].min() < 0:
            raise BadOption(f"needs classes from 0 in {name}; got {arrays[name].min()}")
    classes = int(arrays["y"].max()) + 1 if len(arrays["y"]) else 0
    counts = np.bincount(arrays["y"], minlength=classes) if classes <= 10**6 else np.zeros(1)
    if classes < 2 or not counts.all():
        missing = "" if classes < 2 else f", without class {int(np.flatnonzero(counts == 0)[0])}"
        raise BadOption(
            f"needs classes 0, 1, ... in y, each at least once; got numbers up to {classes - 1}{missing}; "
            "real targets must be floats"
        )
    if "y_test" in arrays and len(arrays["y_test"]) and arrays["y_test"].max() >= classes:
        raise BadOption(f"has class {arrays['y_test'].max()} in y_test, and classes 0 to {classes - 1} in y")
    arrays.update({name: arrays[name].astype(np.int32) for name in names})
    return classes


def _is_one_hot(y: np.ndarray) -> bool:
    return y.ndim == 2 and y.shape[1] > 1 and bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def _scaling(preprocessing: str | None, x: np.ndarray, *, images: bool) -> Scaling:
    if images:
        chosen = choose("preprocessing", preprocessing or "unit", PREPROCESSINGS)
        if preprocessing == "zca" and len(x) <= x[0].size:
            raise BadOption(f"must not be zca with {len(x)} examples of {x[0].size} pixel values", "preprocessing")
        return chosen(x, TOP)
    return choose("preprocessing", preprocessing or "none", {"none": _unchanged, "standardised": _standardised})(x)


def _unchanged(x: np.ndarray) -> Scaling:
    del x
    return Scaling(lambda stored: stored, lambda stored: stored)


def _standardised(x: np.ndarray) -> Scaling:
    """Scales each entry to zero mean and unit standard deviation; a constant one becomes 0."""
    mean, deviation = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    shift, scale = np.float32(mean), np.float32(np.where(deviation > 0, deviation, 1))
    return Scaling(lambda stored: stored, lambda stored: (stored - shift) / scale)
