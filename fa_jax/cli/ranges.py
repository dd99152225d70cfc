"""The ranges of a study: overrides of which some have several values, or an interval, to choose from."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from fa_jax.checks import BadOption
from fa_jax.cli.arguments import Arguments, parse
from fa_jax.cli.composer import Composer
from fa_jax.cli.hydra_context import initialized
from fa_jax.cli.overrides import parse_overrides, swept_values


class Ranges(NamedTuple):
    """The overrides of a study."""

    fixed: list[str]
    searched: dict[str, Override]
    """The overrides with a range, keyed by option."""
    arguments: Arguments
    """The arguments as typed, with a folder of configs and trusted packages."""
    composer: Composer
    """Composes the runs of the study."""

    def any_values(self) -> list[str]:
        """Returns overrides with some value of each range, to check the other options with."""
        return [*self.fixed, *(f"{key}={_any_value(override)}" for key, override in self.searched.items())]


def parse_ranges(words: Sequence[str], valid: Iterable[str]) -> Ranges:
    """Returns the overrides of a study.

    Args:
      words: as typed, without the options of the study.
      valid: these options, for the message.

    Raises:
      BadOption: if nothing has a range, a range is empty, or a word is no override.
    """
    arguments = parse(words)
    valid_arguments = Arguments(
        arguments.overrides, arguments.options, config_dir=arguments.config_dir, dry_run=arguments.dry_run
    )
    if arguments != valid_arguments or set(arguments.options) - {"trust"}:
        raise BadOption(f"takes overrides and {', '.join(valid)}; got {' '.join(words)}", "tune")
    fixed, searched = [], {}
    with initialized():
        for word, override in zip(arguments.overrides, parse_overrides(arguments.overrides), strict=True):
            if not override.is_sweep_override():
                fixed.append(word)
                continue
            if not isinstance(override.value(), ChoiceSweep | RangeSweep | IntervalSweep):
                raise BadOption(f"{word} must be interval(a,b), tag(log,interval(a,b)), range(a,b) or a,b,c", "tune")
            _check_range(override)
            searched[override.get_key_element()] = override
    if not searched:
        raise BadOption(
            "needs an option with a range, such as optimizer.learning_rate='tag(log,interval(1e-3,1))'", "tune"
        )
    return Ranges(fixed, searched, arguments, Composer(arguments.config_dir))


def _check_range(override: Override) -> None:
    """Raises `BadOption` if there is nothing in a range."""
    value, key = override.value(), override.get_key_element()
    if isinstance(value, IntervalSweep):
        low, high = cast(float, value.start), cast(float, value.end)
        if not (math.isfinite(low) and math.isfinite(high) and low <= high and (low > 0 or "log" not in value.tags)):
            raise BadOption(
                f"must be from a number to one at least as large, above 0 for log; got {override.input_line}", key
            )
    elif isinstance(value, RangeSweep) and value.step == 0:
        raise BadOption(f"must have another step than 0; got {override.input_line}", key)


def _any_value(override: Override) -> Any:
    value = override.value()
    return value.start if isinstance(value, IntervalSweep) else swept_values(override)[0]


def is_in(value: Any, override: Override) -> bool:
    """Returns whether a value may be one that `suggest` chose in a range: a number, or one of its values as text."""
    if isinstance(value, str):
        return override.is_discrete_sweep() and value in swept_values(override)
    return isinstance(value, int | float)


def suggest(trial: Any, key: str, override: Override) -> Any:
    """Returns the value that a trial of Optuna chooses in a range.

    Raises:
      BadOption: if the study has the option with other values.
    """
    try:
        return _suggested(trial, key, override)
    except ValueError as problem:
        raise BadOption(f"has other values in the study: {problem}", key) from None


def _suggested(trial: Any, key: str, override: Override) -> Any:
    value: Any = override.value()
    if isinstance(value, IntervalSweep) and isinstance(value.start, int) and isinstance(value.end, int):
        return trial.suggest_int(key, value.start, value.end, log="log" in value.tags)
    if isinstance(value, IntervalSweep):
        return trial.suggest_float(key, value.start, value.end, log="log" in value.tags)
    whole = isinstance(value, RangeSweep) and all(isinstance(v, int) for v in (value.start, value.stop, value.step))
    if whole and cast(int, value.step) > 0:
        return trial.suggest_int(key, value.start, cast(int, value.stop) - 1, step=cast(int, value.step))
    return trial.suggest_categorical(key, list(override.sweep_string_iterator()))
