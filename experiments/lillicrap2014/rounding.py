"""Row 8 of task 1 on several machines: how far rounding alone moves the angle of feedback alignment.

    python -m experiments.lillicrap2014.rounding

The instructions that a CPU has decide in which order it adds, and so how it rounds. `XLA_FLAGS` hides some of them, and
so stands for other machines. The script trains the curve of FA with each kind, and writes `rounding.csv` to
outputs/lillicrap2014/results, or with `--update` beside this file: the angle after 1000 and after 1950 examples, over
all seeds, and over those whose NSE is above the level of rounding.
"""

import argparse
import os

import numpy as np

from experiments.common import add_output_options, results_folder, write_table
from experiments.lillicrap2014.common import HERE, OUTPUTS, at
from experiments.lillicrap2014.task1 import ROUNDED
from experiments.training import run_row, trained
from fa_jax.records.reader import Run
from fa_jax.records.statistics import summarise

ARGUMENTS = ("task=linear", "architecture=mlp", "optimizer=sgd", "rule=fa", "evaluations=200")
"""Those of the curve in `conf/experiment/lillicrap2014/task1.yaml`."""
INSTRUCTIONS = ("SSE4_2", "AVX", "AVX2", "AVX512")


def measured(instructions: str, run: Run) -> dict[str, object]:
    """Returns the row of one kind of instructions."""
    row: dict[str, object] = {"instructions": instructions}
    exact = at(run, "test_nse", 1950) > ROUNDED
    for name, examples, chosen in (
        ("at 1000", 1000, slice(None)),
        ("at 1950", 1950, slice(None)),
        (f"at 1950, NSE above {ROUNDED:g}", 1950, exact),
    ):
        summary = summarise(at(run, "signal_angle_0", examples)[chosen].tolist())
        row |= {f"angle {name}": f"{summary.mean:.1f}", f"sd {name}": f"{summary.sd:.1f}", f"n {name}": summary.n}
    return {**row, "median NSE at 1950": f"{np.median(at(run, 'test_nse', 1950)):.1e}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_output_options(parser)
    into = results_folder(parser.parse_args(), HERE)
    results = []
    for instructions in INSTRUCTIONS:
        os.environ["XLA_FLAGS"] = f"--xla_cpu_max_isa={instructions}"
        folder = OUTPUTS / "rounding" / instructions
        row = run_row(f"lillicrap2014/rounding/{instructions}", folder, ARGUMENTS, 0.01, seeds=None, default=20)
        results += [(measured(instructions, run), [run]) for run in trained(row)]
    write_table(into / "rounding.csv", results)


if __name__ == "__main__":
    main()
