"""The texts of `fa-jax --help` and `fa-jax list`."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fa_jax.checks import BadOption, choose
from fa_jax.cli.groups import LISTED, check_config_dir, choices, take_config_dir
from fa_jax.cli.verb_help import VERB_HELP
from fa_jax.user.text import printable

HELP_FLAGS = ("-h", "--help")
IN_PYTHON = {"load": "a run is opened in Python, by fa_jax.load(folder)"}
"""What is no verb, with where it is instead."""
WIDTH = 116
"""The most characters in a line of choices."""
HELP = """\
fa-jax trains neural networks without backpropagation, and compares learning rules over seeds.

usage
  fa-jax [train] [overrides]              train one run
  fa-jax [train] --multirun [overrides]   train every combination of the values given with commas
  fa-jax resume=outputs/...               resume an interrupted run or sweep
  fa-jax resume=auto [overrides]          resume what these overrides started, or start it
  fa-jax status DIR...                    how far the runs in folders have come
  fa-jax tune [overrides, some with ranges] [trials=20] [metric=] [output=]
                                          find the best values of options by Optuna, on held-out examples
  fa-jax compare DIR... [metric=] [against=] [contrasts=] [output=] [columns=] [contrast_columns=]
                [spread=] [format=]       compare the runs in folders: tables, contrasts with p, figures, which also
                                          take title=, size=6x4, font_size=, axis=epochs, layers=, notes=false
  fa-jax report DIR...                    the same as an HTML page, report.html
  fa-jax VERB --help                      the options of a verb, such as fa-jax compare --help
  fa-jax list [groups]                    the choices of config groups
  fa-jax new KIND NAME [package=mylab]    write the files to begin a rule, architecture, task or measure with
  fa-jax check [overrides]                check that a rule keeps the contract, and say in words what fails
  fa-jax --cfg job [overrides]            print the config and train nothing
  fa-jax --dry-run [overrides]            say what would be trained, and how long that took before; also with tune
  fa-jax --config-dir DIR ...             any of these, with the configs of your own in a folder

examples
  fa-jax rule=fa                                        one rule, 20 seeds, a synthetic task
  fa-jax --multirun rule=shallow,bp,fa,dfa              four rules, compared
  fa-jax task=mnist rule=dfa architecture.hidden=[800,800] seeds=3
  fa-jax --multirun task=digits rule=bp,fa optimizer.learning_rate=0.03,0.1,0.3
  fa-jax tune task=digits task.validation=200 rule=fa optimizer.learning_rate='tag(log,interval(1e-3,1))'
  fa-jax compare outputs/sweeps/A outputs/sweeps/B contrasts=dfa:bp,dfa:fa
  fa-jax compare outputs/sweeps/A columns=test_error,n spread=sd format=latex

choices
{choices}

common options
  seed=0 seeds=20                   seeds 0 to 19, or seeds=[3,5,8]; all are trained in one compiled program
  seeds_per_batch=5                 fewer seeds at once, if memory is short
  epochs=2.5 batch_size=64          length of the run
  evaluations=50 spacing=log        when to evaluate: linear or log in examples
  optimizer.learning_rate=0.1       also optimizer.weight_decay, optimizer.clip, optimizer/schedule=cosine
  architecture.hidden=[800,800]     also architecture.activation, .init, .init_scale, .biases, .dropout
  tuned=true                        tuned values for task, architecture and rule, where there are some
  feedback.scale=0.5                of the feedback weights; also feedback.distribution, feedback.density
  measure=separation                further measures of hidden layers
  task.data_dir=PATH                the data directory of TFDS; else $TFDS_DATA_DIR
  processes=auto                    train on the devices of several processes, see conf/README.md
  hydra.run.dir=PATH                the folder of the run; hydra.sweep.dir for a sweep

A run writes its numbers, figures and weights to outputs/. Exit codes: 0 done, 1 a run is not finished, 2 a mistake in
the options, 130 interrupted.
"""


def print_list(words: Sequence[str]) -> None:
    """Prints the choices of the named config groups, or of all, with one line each.

    Raises:
      BadOption: if there is no such group.
    """
    config_dir, groups = take_config_dir(words)
    check_config_dir(config_dir)
    for group in groups:
        choose("list", group, dict.fromkeys(LISTED))
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    for group in groups or LISTED:
        table = Table(title=group, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, line in choices(group, config_dir).items():
            table.add_row(Text(printable(name)), Text(line))
        console.print(table)
        console.print()


def print_help(words: Sequence[str]) -> None:
    """Prints how to use `fa-jax`, with the choices of each config group; or a verb, if the first word is one.

    Raises:
      BadOption: if there is no such verb.
    """
    config_dir, others = take_config_dir(words)
    check_config_dir(config_dir)
    first = next((word for word in others if word not in HELP_FLAGS and not word.startswith("trust=")), "train")
    verb = "train" if "=" in first or first.startswith(("-", "~")) else first
    if choose_verb(verb, {"train": "", "help": "", **VERB_HELP}) not in ("train", "help"):
        print(VERB_HELP[verb], end="")
        return
    listed = {group: list(choices(group, config_dir)) for group in LISTED}
    print(HELP.format(choices="\n".join(_row(group, names) for group, names in listed.items() if names)), end="")


def choose_verb(verb: str, verbs: Mapping[str, Any]) -> str:
    """Returns a verb.

    Raises:
      BadOption: if it is none of `verbs`.
    """
    if verb in IN_PYTHON:
        raise BadOption(f"must be one of {', '.join(verbs)}; {IN_PYTHON[verb]}", "the verb")
    choose("the verb", verb, verbs)
    return verb


def _row(group: str, names: Sequence[str]) -> str:
    """Returns the choices of a group in lines; of those in folders, the folders with the number in each."""
    folders = Counter(name.partition("/")[0] for name in names if "/" in name)
    shown = [name for name in names if "/" not in name] + [f"{folder}/ ({n})" for folder, n in folders.items()]
    text = ", ".join(shown) + (f"; fa-jax list {group} shows all {len(names)}" if folders else "")
    return textwrap.fill(
        printable(text),
        WIDTH,
        initial_indent=f"  {group:18} ",
        subsequent_indent=" " * 21,
        break_long_words=False,
        break_on_hyphens=False,
    )
