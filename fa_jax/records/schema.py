"""The shape of what runs and sweeps record, and how their files are read: with limits, and nothing but plain values.

A folder may come from anyone. A file that is damaged, of other types than it should have, deep, or too large raises a
`ValueError` of one line that names it.
"""

import stat
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
import yaml
from msgspec import Meta

from fa_jax.records import plain_yaml
from fa_jax.records.plain_yaml import DEEPEST
from fa_jax.user.text import printable

LARGEST = 2**24
"""The largest JSON file in bytes."""
LARGEST_CONFIG = 2**21
"""The largest YAML file in bytes."""
LONGEST_REASON = 300
"""The most characters of the reason why a file cannot be read, in which keys and values occur."""

Count = Annotated[int, Meta(ge=0, le=2**62)]
Integer = Annotated[int, Meta(ge=-(2**62), le=2**62)]
Positive = Annotated[int, Meta(ge=1, le=2**62)]


class Config(TypedDict):
    """What reports need to know of `config.yaml`, which holds much more."""

    choices: dict[str, str | None]
    seeds: Positive | Annotated[list[Integer], Meta(min_length=1)]
    epochs: Annotated[float, Meta(gt=0)]
    spacing: str


class Status(TypedDict):
    """`status.json`."""

    status: Literal["running", "finished", "interrupted", "diverged", "failed"]
    reason: str | None
    time: str
    pid: NotRequired[Count]


class Moments(TypedDict):
    """A metric over seeds; null is NaN."""

    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    median: float | None
    n: Count


class Final(Moments):
    """A metric over seeds, of a logarithmic one also the geometric mean."""

    geometric: NotRequired[Moments]


class Cost(TypedDict):
    """What a run took."""

    effective_params: Count
    affiliated_params: Count
    feedback_weights: Count
    compile_seconds: float
    train_seconds: float
    evaluation_seconds: float
    seed_steps_per_second: float
    memory_bytes: Annotated[float, Meta(ge=0)]


class Summary(TypedDict):
    """`summary.json`."""

    seeds: list[Integer]
    diverged_seeds: list[Integer]
    step: Count
    final: dict[str, Final]
    cost: Cost


class Environment(TypedDict):
    """`environment.json`."""

    commit: str | None
    packages: dict[str, str]
    time: NotRequired[str]
    command: NotRequired[list[str]]
    python: NotRequired[str]
    platform: NotRequired[str]
    processor: NotRequired[str]
    cores: NotRequired[Count | None]
    devices: NotRequired[list[str]]
    settings: NotRequired[dict[str, bool | str | None]]
    resumed: NotRequired[list[dict[str, Any]]]


class ColumnRecord(TypedDict):
    """A column of `metrics.csv`, as `Column._asdict` has it."""

    metric: str
    label: str
    unit: str
    better: Literal["lower", "higher", "neither"]
    logarithmic: bool
    bounds: tuple[float | None, float | None]
    split: Literal["test", "validation", "train"] | None
    layer: Count | None
    plotted: bool
    prediction: str
    flag: NotRequired[tuple[str, float | None, float | None, str] | None]
    random: NotRequired[tuple[float, float, float] | None]


class Columns(TypedDict):
    """`metrics.json`."""

    main: str
    columns: dict[str, ColumnRecord]


class CostSoFar(TypedDict, total=False):
    """What a run took until a checkpoint."""

    compiling: Annotated[float, Meta(ge=0)]
    training: Annotated[float, Meta(ge=0)]
    evaluating: Annotated[float, Meta(ge=0)]
    memory: Annotated[float, Meta(ge=0)]


class Manifest(TypedDict):
    """The manifest of a checkpoint."""

    digests: dict[str, str]
    cost: CostSoFar


class Sweep(TypedDict):
    """`sweep.json`."""

    overrides: list[str]
    config_dir: str | None
    jobs: Annotated[int, Meta(ge=0, le=10**6)]


def read_json(path: Path, schema: Any) -> Any:
    """Returns the content of a file of JSON, which has the types of a schema; what the schema leaves out is kept.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is damaged.
    """
    return read(path, lambda content: decode(content, schema))


def read(path: Path, decoder: Callable[[bytes], Any]) -> Any:
    """Returns what a decoder makes of a file of JSON, such as `decode` with a schema.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is damaged.
    """
    content = _read(path, LARGEST)
    try:
        return decoder(content)
    except (ValueError, RecursionError) as problem:
        raise _unreadable(path, problem) from None


def decode(content: bytes, schema: Any) -> Any:
    """Returns the content of JSON, which has the types of a schema."""
    return _checked(msgspec.json.decode(content), schema)


def read_config(path: Path) -> dict[str, Any]:
    """Returns the config in a file of YAML; it is plain: without tags, anchors and aliases.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is damaged.
    """
    content = _read(path, LARGEST_CONFIG)
    try:
        content = _checked(plain_yaml.read(content.decode()), Config)
        if not all(content["choices"].get(group) for group in ("rule", "task")):
            raise ValueError("has no choice of rule or task")
        return content
    except (ValueError, RecursionError, TypeError, yaml.YAMLError) as problem:
        raise _unreadable(path, problem) from None


def read_lines(path: Path) -> str:
    """Returns the complete lines of a file of text; a kill may leave half a last line.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is damaged.
    """
    content = _read(path, None)
    try:
        return content[: content.rfind(b"\n") + 1].decode()
    except ValueError as problem:
        raise _unreadable(path, problem) from None


def damaged(path: Path, why: str) -> ValueError:
    """Returns the error that a file of a run cannot be read."""
    return ValueError(f"its {path.name}: {textwrap.shorten(printable(why), LONGEST_REASON)}")


def _read(path: Path, largest: int | None) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        raise damaged(path, "is no file")
    if largest is not None and status.st_size > largest:
        raise damaged(path, f"has {status.st_size:,} bytes, more than {largest:,}")
    return path.read_bytes()


def _unreadable(path: Path, problem: Exception) -> ValueError:
    if isinstance(problem, RecursionError):
        return damaged(path, f"has more than {DEEPEST} levels")
    if isinstance(problem, yaml.MarkedYAMLError) and problem.problem_mark:
        return damaged(path, f"{problem.problem} in line {problem.problem_mark.line + 1}")
    return damaged(path, str(problem).partition("\n")[0])


def _checked(content: Any, schema: Any) -> Any:
    """Returns plain content, if it has the types of a schema, and only text as keys."""
    _check_depth(content, 0)
    msgspec.convert(content, schema)
    return content


def _check_depth(content: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise RecursionError
    if isinstance(content, dict):
        if not all(isinstance(key, str) for key in content):
            raise ValueError(f"has a key that is no text: {next(key for key in content if not isinstance(key, str))}")
        for value in content.values():
            _check_depth(value, depth + 1)
    elif isinstance(content, list):
        for value in content:
            _check_depth(value, depth + 1)
