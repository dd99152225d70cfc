"""A rule on an architecture and a task: its trials, its tuned values, and its runs on all training examples."""

import csv
import datetime
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.common import read_rows
from experiments.edges import FACTOR, FURTHER, beyond, validation_error
from experiments.training import DONE, Row, Training, state
from fa_jax.checks import BadOption
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.cli.tuned import TABLE
from fa_jax.records.sources import commit

RATE, SCALE = "optimizer.learning_rate", "feedback.scale"
"""The options that are tuned."""
OUTPUTS = Path("outputs/rules_by_architectures")
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
RATES_OF = {
    "associated_learning": (0.0003, 0.001, 0.003, 0.01, 0.03),
    "local_loss": (0.0001, 0.0003, 0.001, 0.003, 0.01),
    "forward_forward": (0.003, 0.01, 0.03, 0.1, 0.3),
    "recurrent_forward_forward": (0.003, 0.01, 0.03, 0.1, 0.3),
    "predictive_coding": (0.0003, 0.001, 0.003, 0.01, 0.03),
    "scff": (0.0003, 0.001, 0.003, 0.01, 0.03),
}
"""The rates of rules with another default optimizer than plain gradient descent."""
SCALE_FACTORS = (1 / 3, 3.0)
RATE_FACTORS = (3**-0.5, 3**0.5)
SIZES: dict[str, dict[str, dict[str, str]]] = {
    "digits": {
        "mlp": {"hidden": "[100,100]"},
        "cnn": {},
        "lenet": {},
        "locally_connected": {"topology": "conv16x3s2-conv32x3s2-64"},
        "resnet8": {},
        "transformer": {"patch": "2", "width": "32", "blocks": "2", "mlp_width": "64"},
        "recurrent": {"hidden": "[64]"},
        "residual_mlp": {"width": "64", "blocks": "4", "block_width": "64"},
    },
    "mnist": {
        "mlp": {"hidden": "[100,100]"},
        "lenet": {},
        "transformer": {"patch": "7", "width": "32", "blocks": "2", "mlp_width": "64"},
        "recurrent": {"hidden": "[64]"},
    },
}
"""The architectures of each task, and their sizes where these are not the defaults. Other architectures are trained if
they are named on the command line; their default sizes need an accelerator."""
TRIAL_SEEDS = 2
SEEDS = 5
"""The seeds of the runs on all training examples."""
HOURS = {"digits": 0.05, "mnist": 0.2}
"""Rough estimates for a rule on the dense network."""
HELD_OUT = {"digits": 200, "mnist": 10000}
TUNED_KEY = ("task", "architecture", "rule")
"""The columns that identify a row of `conf/tuned.csv`."""


class NotTrained(Exception):
    """A sweep of trials is not done."""

    def __init__(self, training: Training):
        super().__init__("a sweep of trials is not done")
        self.training = training


class Case:
    """A rule on an architecture and a task."""

    def __init__(self, task: str, architecture: str, rule: str, epochs: float | None, trial_seeds: int = TRIAL_SEEDS):
        self.task, self.architecture, self.rule, self.trial_seeds = task, architecture, rule, trial_seeds
        self.sizes = [f"architecture.{option}={value}" for option, value in SIZES[task].get(architecture, {}).items()]
        self.overrides = [f"task={task}", f"architecture={architecture}", f"rule={rule}", *self.sizes]
        self.overrides += [] if epochs is None else [f"epochs={epochs:g}"]
        self.command = f"python -m experiments.rules_by_architectures.compare {task}"
        self.command += "" if epochs is None else f" --epochs {epochs:g}"
        self.command += "" if trial_seeds == TRIAL_SEEDS else f" --trial-seeds {trial_seeds}"
        self.folder = OUTPUTS / (task if epochs is None else f"{task}_epochs_{epochs:g}") / architecture / rule

    @functools.cache  # noqa: B019 - there are few cases, and each is asked often
    def config(self) -> dict[str, Any] | None:
        """Returns the default config; None if the rule is not defined on the architecture."""
        try:
            composition = compose(parse(self.overrides))
            composition.build()
        except BadOption as refusal:
            if not str(refusal).startswith(f"rule={self.rule} "):
                raise
            print(f"{self.rule} on {self.architecture}: {refusal}")
            return None
        return composition.runs[0].config

    def validation_errors(self, option: str, tried: Sequence[float], fixed: dict[str, float]) -> list[float]:
        """Returns the mean validation error for each value of an option, in one sweep; infinite if a seed diverged.

        Raises:
          NotTrained: if this sweep is missing or was cut off.
        """
        swept = f"{option}={','.join(f'{value:.4g}' for value in tried)}"
        words = [*_overrides(fixed), swept]
        trial = [f"seeds={self.trial_seeds}", "probe=0", "evaluations=1", f"task.validation={HELD_OUT[self.task]}"]
        trial += ["checkpoint=false", "checkpoint_every=null"]
        trials = words if self.trial_seeds == TRIAL_SEEDS else [*words, f"seeds={self.trial_seeds}"]
        folder = self.folder / "_".join(trials).replace("=", "_").replace(",", "_")
        training = Training(folder, (*self.overrides, *words, *trial), is_sweep=True)
        if state(training).kind != DONE:
            raise NotTrained(training)
        return [validation_error(run) for run in training.runs()]

    def tune(self, scale: float | None) -> tuple[dict[str, float], bool]:
        """Returns the best rate and feedback scale, and whether the search ended before it came to a lowest point.

        Args:
          scale: the default scale of the feedback; None: the rule has none.
        """
        by_rate = self.errors_by_rate()
        errors = {(rate, scale): by_rate[rate] for rate in sorted(by_rate)}
        rate, _ = _best(errors)
        if scale is None:
            self._try_rates(errors, [rate * factor for factor in RATE_FACTORS], None)
            best = _best(errors)
            return {RATE: best[0]}, not min(errors) < best < max(errors)
        self._try_scales(errors, rate, [scale * factor for factor in SCALE_FACTORS])
        best, ended = _best(errors), True
        if best[1] == scale:
            ended = min(by_rate) < rate < max(by_rate)
        else:
            # Another scale may go with another rate, and one beyond may be better.
            for _ in range(FURTHER):
                centre = best
                self._try_rates(errors, [centre[0] / FACTOR, centre[0] * FACTOR], centre[1])
                self._try_scales(errors, centre[0], [centre[1] * SCALE_FACTORS[centre[1] > scale]])
                best = _best(errors)
                if ended := best == centre:
                    break
        return {RATE: best[0]} | ({} if best[1] == scale else {SCALE: best[1]}), not ended

    def _try_rates(self, errors: dict[tuple, float], rates: Sequence[float], scale: float | None) -> None:
        """Adds the validation errors with some rates at a scale, without those that are known."""
        known = {f"{rate:.4g}" for rate, at_scale in errors if at_scale == scale}
        if new := [rate for rate in rates if f"{rate:.4g}" not in known]:
            validated = self.validation_errors(RATE, new, {} if scale is None else {SCALE: scale})
            errors |= {(rate, scale): error for rate, error in zip(new, validated, strict=True)}

    def _try_scales(self, errors: dict[tuple, float], rate: float, scales: Sequence[float]) -> None:
        """Adds the validation errors with some scales at a rate."""
        validated = self.validation_errors(SCALE, scales, {RATE: rate})
        errors |= {(rate, scale): error for scale, error in zip(scales, validated, strict=True)}

    def errors_by_rate(self) -> dict[float, float]:
        """Returns the mean validation error for each learning rate of the grid, and beyond its edge if that is best."""
        rates = RATES_OF.get(self.rule, RATES)
        errors = dict(zip(rates, self.validation_errors(RATE, rates, {}), strict=True))
        for _ in range(FURTHER):
            if (further := beyond(errors)) is None:
                break
            (errors[further],) = self.validation_errors(RATE, [further], {})
        return errors

    def tuned_row(self, values: dict[str, float], optimizer: str) -> dict[str, str]:
        """Returns the row of `conf/tuned.csv` for these values of an optimizer."""
        return {
            "task": self.task,
            "architecture": self.architecture,
            "rule": self.rule,
            "optimizer": optimizer,
            "overrides": " ".join([*self.sizes, *_overrides(values)]),
            "command": self.command,
            "date": datetime.date.today().isoformat(),
            "commit": (commit() or "unknown")[:7],
        }

    def trainings(self, seeds: int | None) -> Iterator[Training]:
        """Yields the runs on all training examples, and before the tuned one what tuning needs; none if not defined.

        Args:
          seeds: of these runs; None: as recorded, or five.
        """
        config = self.config()
        if config is None:
            return
        yield self.final("as it comes", {}, seeds)
        values = None
        while values is None:
            try:
                values, _ = self.tune(default_scale(config))
            except NotTrained as missing:
                yield missing.training
        yield self.final("tuned", values, seeds)

    def final(self, name: str, values: dict[str, float], seeds: int | None = None) -> Training:
        """Returns the run on all training examples with these values; seeds are those of `trainings`."""
        asked, defaults = ((f"seeds={seeds}",), ()) if seeds is not None else ((), (f"seeds={SEEDS}",))
        arguments = (*self.overrides, *_overrides(values), *asked, "checkpoint=false")
        return Training(self.folder / name.replace(" ", "_"), arguments, defaults)


def _best(errors: dict[Any, float]) -> Any:
    """Returns the values with the lowest error, of equal ones the first."""
    return min(errors, key=errors.__getitem__)


def _overrides(values: dict[str, float]) -> list[str]:
    return [f"{option}={value:.4g}" for option, value in values.items()]


def write_tuned(row: dict[str, str], path: Path = TABLE) -> None:
    """Adds a row to a table of tuned values, in place of the row of the same task, architecture and rule."""
    rows = {tuple(old[column] for column in TUNED_KEY): old for old in read_rows(path)}
    key = tuple(row[column] for column in TUNED_KEY)
    # Values that were measured again keep the date and the commit of the first time.
    if key not in rows or any(rows[key][column] != row[column] for column in ("optimizer", "overrides", "command")):
        rows[key] = row
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))


def default_scale(config: dict[str, Any]) -> float | None:
    """Returns the feedback scale of a config; None if it has none."""
    return config.get("feedback", {}).get("scale")


def row_of(case: Case, seeds: int | None = None) -> Row:
    """Returns the row of a case; seeds are those that were asked for."""
    name = f"rules_by_architectures/{case.folder.relative_to(OUTPUTS)}"
    name += "" if case.trial_seeds == TRIAL_SEEDS else f":{case.trial_seeds}"
    return Row(name, case.folder, lambda: case.trainings(seeds), HOURS[case.task])


def case_of(row: Row) -> Case:
    """Returns the case that a row is of."""
    _, task, architecture, rule = row.name.split("/")
    (task, _, epochs), (rule, _, trial_seeds) = task.partition("_epochs_"), rule.partition(":")
    return Case(task, architecture, rule, float(epochs) if epochs else None, int(trial_seeds or TRIAL_SEEDS))
