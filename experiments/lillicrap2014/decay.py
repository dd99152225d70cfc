"""Task 2 with other weight decays and initial weights, which might make the curves level off as in fig. 2a.

    python -m experiments.lillicrap2014.decay

The paper prints a decay of 1e-6, and not whether it is multiplied by the learning rate or applied to every example or
batch. The script trains to 2.5 million examples, or to 5 with the decay that fits best, one seed each, with decays from
the printed one multiplied by the rate (1e-6 here) to the printed one for every example without the rate (1e-3 here). It
writes `decay.csv` to outputs/lillicrap2014/results, or with `--update` beside this file: the test error in % after the
numbers of examples at which fig. 2a was read. MNIST is read from `$TFDS_DATA_DIR`.
"""

import argparse
from collections.abc import Iterator

from experiments.common import add_output_options, results_folder, write_table
from experiments.lillicrap2014.common import HERE, OUTPUTS, at
from experiments.lillicrap2014.task2 import PREFIX
from experiments.training import sweep_row, trained
from fa_jax.records.reader import Run

EXAMPLES = (125_000, 250_000, 500_000, 1_250_000, 2_500_000, 5_000_000)
SHORT, LONG = ("epochs=41.6667", "evaluations=20"), ("epochs=83.3333", "evaluations=40")
"""2.5 and 5 million examples, evaluated every 125 000."""
SWEEPS = {
    "bp": ("bp", "0.4", "1e-6,1e-4,3e-4,1e-3", SHORT),
    "fa": ("fa", "0.4", "1e-6,1e-4,3e-4,1e-3", SHORT),
    "shallow": ("shallow", "0.05,0.4", "1e-6,3e-4", SHORT),
    "bp_between": ("bp", "0.4", "5e-4", LONG),
    "fa_between": ("fa", "0.4", "5e-4", LONG),
}
"""The rules, their initial scales (omega) and decays, and how long they learn."""
SHARED = ("probe=0", "checkpoint=false")


def measured(rule: str, run: Run) -> dict[str, object]:
    """Returns the line of a run."""
    settings = {"rule": rule, "omega": run.config["architecture"]["init_scale"]}
    settings["weight decay"] = f"{run.config['optimizer']['weight_decay']:g}"
    last = run.curves("test_error")[0][-1]
    errors = {
        f"test error at {examples}": f"{at(run, 'test_error', examples).mean():.2f}"
        for examples in EXAMPLES
        if examples <= last
    }
    return {**settings, "seeds": len(run.seeds), **errors}


def runs() -> Iterator[tuple[str, Run]]:
    """Yields the rules and runs, after training those that are missing."""
    for name, (rule, omegas, decays, length) in SWEEPS.items():
        swept = [f"architecture.init_scale={omegas}", f"optimizer.weight_decay={decays}"]
        arguments = [f"experiment={PREFIX}{rule}", *swept, *length, *SHARED]
        row = sweep_row(f"lillicrap2014/task2_decay/{name}", OUTPUTS / "task2_decay" / name, arguments, None, seeds=1)
        for run in trained(row):
            yield rule, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_output_options(parser)
    into = results_folder(parser.parse_args(), HERE)
    write_table(into / "decay.csv", [(measured(rule, run), [run]) for rule, run in runs()])


if __name__ == "__main__":
    main()
