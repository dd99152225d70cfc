"""Studies of rules beside controls: a learning rate for each rule, runs of several seeds, margins above the controls.

On each network, a rule tries learning rates on held-out examples, unless it has a single one. While the best of them is
the lowest or the highest, one beyond is tried, up to four in all. Its run has the best of them and all training
examples. The controls are rules in which all or most hidden layers keep their random start; a rule is above one by the
control's test error less its own, in pairs over the seeds.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from experiments import queue
from experiments.common import read_rows, summary_of, write_table
from experiments.edges import FURTHER, beyond, validation_error
from experiments.training import Row, Training, runs_of
from fa_jax.records.reader import Run
from fa_jax.reports.comparison import Comparison, compare
from fa_jax.reports.flags import marked

CONTROLS = ("frozen_blocks", "shallow")


@dataclasses.dataclass(frozen=True)
class Study:
    """Some rules and controls on some networks."""

    name: str
    """The name of the experiment and of its folder in `outputs`."""
    networks: Mapping[str, tuple[str, ...]]
    """The arguments of `fa-jax` that choose the task and the network, by name. On networks that differ in the arguments
    of some rules alone, the others are trained once."""
    recipe: tuple[str, ...]
    """The other arguments that all runs share."""
    rules: tuple[str, ...]
    rates: Callable[[str, str], Sequence[float]]
    """Returns the learning rates that a rule tries on a network; a single one is trained without trials."""
    lengths: Mapping[int, float]
    """Estimated hours of a run of `seeds` seeds, by epochs."""
    trial_epochs: Callable[[int], int]
    """Returns the epochs of a trial, given those of a run."""
    held_out: int
    """Training examples on which trials are judged."""
    for_rule: Callable[[str, str], Sequence[str]] = lambda network, rule: ()
    """Returns further arguments of a rule on a network."""
    seeds: int = 5
    trial_seeds: int = 2

    @property
    def folder(self) -> Path:
        """The folder of the committed results."""
        return Path(__file__).parent / self.name

    def overrides(self, network: str, rule: str, epochs: int) -> tuple[str, ...]:
        """Returns the arguments of a rule on a network, without the learning rate."""
        of_rule = self.for_rule(network, rule)
        return (*self.networks[network], *self.recipe, f"rule={rule}", *of_rule, f"epochs={epochs}")

    def trials(self, network: str, rule: str, epochs: int, rates: Sequence[float], name: str = "trials") -> Training:
        """Returns a sweep over learning rates, given the name of its folder."""
        swept = "optimizer.learning_rate=" + ",".join(f"{rate:.4g}" for rate in rates)
        further = (f"seeds={self.trial_seeds}", f"task.validation={self.held_out}", "probe=0", "checkpoint=false")
        folder = self._outputs(network, rule, epochs) / name
        arguments = (*self.overrides(network, rule, self.trial_epochs(epochs)), swept, *further)
        return Training(folder, arguments, is_sweep=True)

    def sweeps(self, network: str, rule: str, epochs: int) -> Iterator[Training]:
        """Yields the sweeps over learning rates, each when those before it are done: the grid, and rates beyond it."""
        sweep = self.trials(network, rule, epochs, self.rates(network, rule))
        yield sweep
        errors: dict[float, float] = {}
        for _ in range(FURTHER):
            errors |= {rate_of(run): validation_error(run) for run in sweep.runs()}
            if (rate := beyond(errors)) is None:
                return
            sweep = self.trials(network, rule, epochs, [rate], f"trials_{rate:.4g}")
            yield sweep

    def trainings(self, network: str, rule: str, epochs: int, seeds: int | None) -> Iterator[Training]:
        """Yields the trials of a rule that has several rates, and when they are done its run; seeds as in `rows`."""
        chosen, *others = self.rates(network, rule)
        if others:
            trials = []
            for sweep in self.sweeps(network, rule, epochs):
                yield sweep
                trials += sweep.runs()
            chosen = best_rate(trials)
        rate = f"optimizer.learning_rate={chosen:.4g}"
        asked, defaults = ((f"seeds={seeds}",), ()) if seeds is not None else ((), (f"seeds={self.seeds}",))
        folder = self._outputs(network, rule, epochs) / "tuned"
        yield Training(folder, (*self.overrides(network, rule, epochs), rate, *asked), defaults)

    def home(self, network: str, rule: str) -> str:
        """Returns the first network on which the training of a rule is the same as on this one."""

        def training(network: str) -> tuple[Sequence[str], Sequence[float]]:
            return self.overrides(network, rule, epochs=1), self.rates(network, rule)

        return next(other for other in self.networks if training(other) == training(network))

    def row_of(self, network: str, rule: str, epochs: int, seeds: int | None = None) -> Row:
        """Returns the row of a rule on a network."""
        network = self.home(network, rule)
        number = len(self.rates(network, rule))
        trials = self.trial_seeds * self.trial_epochs(epochs) / epochs * (number if number > 1 else 0)
        hours = self.lengths[epochs] * ((self.seeds if seeds is None else seeds) + trials) / self.seeds
        folder = self._outputs(network, rule, epochs)
        name = f"{self.name}/{folder.relative_to(Path('outputs') / self.name)}"
        return Row(name, folder, lambda: self.trainings(network, rule, epochs, seeds), hours)

    def rows(self, seeds: int | None = None) -> list[Row]:
        """Returns all rows; seeds are those that were asked for, None: as recorded, or those of the study."""
        return [
            self.row_of(network, rule, epochs, seeds)
            for epochs in self.lengths
            for network in self.networks
            for rule in self.rules
            if self.home(network, rule) == network
        ]

    def collect(self, into: Path, chosen: Sequence[Row]) -> None:
        """Tabulates those of some rows that are done, one table for each length; controls are read beside them."""
        names = {row.name for row in chosen}
        for epochs in self.lengths:
            lines = []
            for network in self.networks:
                done = {rule: run for rule in self.rules for run in runs_of(self.row_of(network, rule, epochs))}
                compared = compare(list(done.values())) if done else None
                lines += [
                    (self.measured(network, rule, compared, self.tried(network, rule, epochs)), [run])
                    for rule, run in done.items()
                    if compared is not None
                    and self.home(network, rule) == network
                    and self.row_of(network, rule, epochs).name in names
                ]
            if lines:
                write_table(into / f"measured_{epochs}epochs.csv", lines, "network", "rule")

    def tried(self, network: str, rule: str, epochs: int) -> list[float]:
        """Returns the learning rates that the trials of a rule had, from the lowest up; none if it has a single one."""
        if len(self.rates(network, rule)) == 1:
            return []
        return sorted(rate_of(run) for sweep in self.sweeps(network, rule, epochs) for run in sweep.runs())

    def measured(self, network: str, rule: str, compared: Comparison, tried: Sequence[float]) -> dict[str, Any]:
        """Returns a row of the table: the last epoch, and how far it is above each control that is done.

        Args:
          network, rule: of the row.
          compared: the runs of all rules on the network.
          tried: the learning rates of the trials, from the lowest up; empty: there were none.
        """
        rules = [condition.run.choices["rule"] for condition in compared.conditions]
        run = compared.conditions[rules.index(rule)].run
        final, rate = summary_of(run)["final"], rate_of(run)
        error = final["test_error"]
        angles = [
            marked(f"{final[name]['mean']:.0f}", run, name)
            for name in final
            if name.startswith("signal_angle_") and final[name]["n"]
        ]
        row: dict[str, Any] = {
            "network": network,
            "rule": rule,
            "n": error["n"],
            "diverged": len(run.diverged),
            "learning rate": f"{rate:g}",
            "at the edge of the grid": rate in (*tried[:1], *tried[-1:]),
            **{
                name: "" if error[key] is None else f"{error[key]:.2f}"
                for name, key in (("test error", "mean"), ("low", "low"), ("high", "high"))
            },
            "angles of the signals, layer by layer": " ".join(angles),
            **{f"above {control}{part}": "" for control in CONTROLS for part in ("", ", n", ", low", ", high")},
        }
        for margin in compared.margins:
            if rules[margin.condition] == rule:
                above = f"above {rules[margin.control]}"
                row |= {above: f"{margin.margin:+.2f}", f"{above}, n": margin.n}
                row |= {f"{above}, low": f"{margin.low:+.2f}", f"{above}, high": f"{margin.high:+.2f}"}
        return row

    def recorded(self, epochs: int) -> list[dict[str, str]]:
        """Returns the committed rows of a length."""
        return read_rows(self.folder / f"measured_{epochs}epochs.csv")

    def main(self, description: str | None, default: Sequence[str], tables: Callable[[], str]) -> None:
        """Trains and collects rows, or prints their tables.

        Args:
          description: the text of `--help`.
          default: the names of rows, without the study's, that are trained if none are named.
          tables: returns the tables of the committed results.
        """
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("rows", nargs="*", default=list(default), help="names of rows, or of folders of rows")
        chosen = queue.parsed(parser, lambda chosen: tables())
        queue.follow(parser, chosen, [f"{self.name}/{name}" for name in chosen.rows], self.name)

    def _outputs(self, network: str, rule: str, epochs: int) -> Path:
        return Path("outputs") / self.name / f"{epochs}epochs" / network / rule


def rate_of(run: Run) -> float:
    """Returns the learning rate of a run."""
    return run.config["optimizer"]["learning_rate"]


def best_rate(trials: Sequence[Run]) -> float:
    """Returns the learning rate with the lowest mean validation error; of equal ones the lowest."""
    return rate_of(min(trials, key=lambda run: (validation_error(run), rate_of(run))))


def markdown(lines: Sequence[Sequence[str]], columns: Mapping[str, str]) -> str:
    """Returns a Markdown table, given its lines and the alignment of each column."""
    return tabulate(lines, list(columns), "pipe", disable_numparse=True, colalign=list(columns.values()))
