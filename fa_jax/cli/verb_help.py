"""The texts of `fa-jax VERB --help`: what a verb does, its options, and examples."""

from fa_jax.cli.groups import LISTED

OF_FIGURES = """\
  title=TEXT                  of figures
  size=6x4 font_size=8        width and height of figures in inches, and their letters in points
  axis=epochs                 what curves are drawn over: examples or epochs
  layers=0,2                  hidden layers whose angles are drawn, counted from 0 at the input
  notes=false                 leaves out the explanations below figures
"""
OF_COMPARISONS = """\
  metric=test_loss            a column of metrics.csv in place of the score that the task is judged by
  against=fa                  the rule that the others are contrasted with, in place of bp, or of the first of two
  contrasts=dfa:bp,dfa:fa     these contrasts alone
  output=DIR                  where it is written, in place of the only folder that is named
"""
VERB_HELP = {
    "tune": """\
fa-jax tune [overrides, some with ranges] [options]

Finds the values of options with the best score on held-out examples, by Optuna, and prints the command that trains
them. The study is kept in its folder; the same command continues it.

ranges
  optimizer.learning_rate='tag(log,interval(1e-3,1))' 'feedback.scale=interval(0.1,2)' 'batch_size=range(8,65,8)'
  architecture.activation=tanh,relu

options
  trials=20                   how many are made in all
  at_once=5                   how many are chosen before the first of them is judged
  metric=validation_loss      what is judged, in place of the score of the task on validation examples
  output=DIR                  the folder of the study, in place of outputs/tune/<task>_<rule>
  sampler_seed=0              of the random choices
  --dry-run                   say how many trials it would make, and how long that takes

example
  fa-jax tune task=digits task.validation=200 rule=fa optimizer.learning_rate='tag(log,interval(1e-3,1))' trials=30
""",
    "compare": f"""\
fa-jax compare DIR... [options]

Compares the runs in folders, and in folders below them: tables, contrasts in pairs over seeds, what is above a
control, and figures. Of one folder, comparison.* is written there, or to outputs/comparisons if options change its
numbers; of several folders, to outputs/comparisons.

options
{OF_COMPARISONS}\
  columns=test_error,n        of the table: metrics, options such as optimizer.learning_rate, n, params and others
  contrast_columns=difference,p_t    of contrasts in Markdown and LaTeX
  spread=sd                   what follows ±: sd, or half of the 95 % interval
  format=latex                csv, markdown, latex, png, pdf, svg or several; one of the first three is printed alone
{OF_FIGURES}
examples
  fa-jax compare outputs
  fa-jax compare outputs/sweeps/A outputs/sweeps/B contrasts=dfa:bp,dfa:fa
  fa-jax compare outputs/sweeps/A columns=test_error,n spread=sd format=latex
""",
    "report": f"""\
fa-jax report DIR... [options]

Writes report.html, one page of all runs in folders that needs no network: tables, contrasts, and curves in which the
reader chooses. Of one folder, it is written there; of several, to outputs/comparisons.

options
{OF_COMPARISONS}\
  title=TEXT                  of the page
  axis=epochs layers=0        what curves are drawn over, and the layer whose angles are drawn, until the reader chooses

example
  fa-jax report outputs/sweeps/A title='Feedback alignment on digits'
""",
    "status": """\
fa-jax status DIR...

Prints how far the runs in folders have come. It has no options.

example
  fa-jax status outputs
""",
    "list": f"""\
fa-jax list [groups]

Prints the choices of config groups, of all or of those that are named:
  {", ".join(LISTED)}

examples
  fa-jax list rule feedback
  fa-jax --config-dir conf list rule        with those of your own
""",
    "new": """\
fa-jax new KIND NAME [package=mylab]

Writes the two files to begin a part of your own with: NAME.py in the folder of the package, with what is to be filled
in, and its options in conf/KIND/NAME.yaml. Nothing that exists is replaced.

kinds
  rule                        a learning rule: a function (network, loss) -> Rule
  architecture                a network
  task                        data, with the scores of outputs that judge a run (Task.metrics)
  measure, or metric          what is measured of hidden layers in training

options
  package=mylab               the package of the Python file
  --config-dir DIR            the folder of the YAML file, in place of conf

examples
  fa-jax new rule my_rule
  fa-jax --config-dir conf trust=mylab check rule=my_rule
""",
    "check": """\
fa-jax check [overrides] [--config-dir DIR] [trust=PACKAGE]

Checks that a rule keeps the contract of fa_jax.core.Rule, on a few examples of the task, and says in words what fails:
trees and shapes, finite updates, the same updates compiled, repeated and over seeds, whatever the size of the batch,
and a loss that falls. The exit code is 1 if anything fails.

examples
  fa-jax check rule=fa
  fa-jax --config-dir conf trust=mylab check rule=my_rule task=mnist architecture=cnn
""",
}
"""By verb; `train` has the text of `fa-jax --help`."""
