"""What there is to choose from, read from the YAML files: the texts of `fa-jax list` and `fa-jax --help`."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fa_jax.checks import choose

_PACKAGE = Path(__file__).parents[1]
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The folder of the YAML files: inside an installed package, beside the package in a checkout."""

LISTED = ("rule", "task", "architecture", "loss", "optimizer", "optimizer/schedule", "logger", "experiment")

HELP = """\
fa-jax compares learning rules that do without backpropagation.

usage
  fa-jax [train] [overrides]              train one run
  fa-jax [train] --multirun [overrides]   train every combination of the values given with commas
  fa-jax resume=outputs/...               go on with a run or a sweep that was cut off
  fa-jax resume=auto [overrides]          go on with what these overrides began, if it was cut off; else begin it
  fa-jax status DIR...                    how far the runs in folders have come
  fa-jax tune [overrides, some with ranges] [trials=20] [metric=validation_error] [output=]
                                          seek the best values of options by Optuna, on held-out examples
  fa-jax compare DIR... [metric=] [against=] [contrasts=] [output=]
                                          compare the runs in folders: tables, contrasts with p, a figure
  fa-jax report DIR...                    the same as a page to look at, report.html
  fa-jax list [groups]                    what there is to choose from
  fa-jax --cfg job [overrides]            print the config and train nothing

examples
  fa-jax rule=fa                                        one rule, 20 seeds, a synthetic task
  fa-jax --multirun rule=shallow,bp,fa,dfa              four rules, compared
  fa-jax task=mnist rule=dfa architecture.hidden=[800,800] seeds=3
  fa-jax --multirun task=digits rule=bp,fa optimizer.learning_rate=0.03,0.1,0.3
  fa-jax tune task=digits task.validation=200 rule=fa optimizer.learning_rate='tag(log,interval(1e-3,1))'
  fa-jax compare outputs/sweeps/A outputs/sweeps/B against=fa contrasts=dfa:bp,dfa:fa

choices
{choices}

options most used
  seed=0 seeds=20                   seeds 0 to 19; seeds=[3,5,8] picks them; all in one compiled program
  seeds_per_batch=5                 fewer at once, if memory is short
  epochs=2.5 batch_size=64          length of the run
  evaluations=50 spacing=log        when to evaluate; linear or log in examples
  optimizer.learning_rate=0.1       likewise optimizer.weight_decay, optimizer.clip, optimizer/schedule=cosine
  architecture.hidden=[800,800]     likewise architecture.activation, .init, .init_scale, .biases, .dropout
  tuned=true                        the learning rate found best for task, architecture and rule, where one was
  rule.scale=0.5                    of the feedback weights; likewise rule.distribution, rule.kept
  task.data_dir=PATH                where TFDS keeps its data; else $TFDS_DATA_DIR
  processes=auto                    train with the devices of several processes, as README.md says
  hydra.run.dir=PATH                where the run goes; hydra.sweep.dir for a sweep

A run leaves its numbers, figures and weights in outputs/. Exit codes: 0 done, 1 a run did not come to its end, 2 a
mistake in the options, 130 interrupted.
"""


def options(group: str) -> dict[str, str]:
    """Returns the options of a config group with the first comment line of each: name -> line."""
    return {path.stem: _first_comment(path) for path in sorted((CONF / group).glob("*.yaml"))}


def print_list(groups: Sequence[str]) -> None:
    """Prints the options of the named groups, or of all, with a line each.

    Raises:
      BadOption: if there is no such group.
    """
    for group in groups:
        choose("list", group, dict.fromkeys(LISTED))
    console = Console()
    for group in groups or LISTED:
        table = Table(title=group, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, line in options(group).items():
            table.add_row(name, escape(line))
        console.print(table)
        console.print()


def print_help() -> None:
    """Prints the help, with the choices there are."""
    choices = "\n".join(f"  {group:18} {', '.join(options(group))}" for group in LISTED if options(group))
    print(HELP.format(choices=choices), end="")


def _first_comment(path: Path) -> str:
    lines = (line for line in path.read_text().splitlines() if line.startswith("#"))
    return next((line[1:].strip() for line in lines if not line.startswith("# @package")), "")
