"""Asks why Forward-Forward does not learn with convolutions: digits' convolutional network, and what is changed of it.

    python -m experiments.rules_by_architectures.shared_weights

The label is written into ten pixels of the image. With a kernel for each position, those that see the label can learn
of it; a shared kernel sees mostly positions without one, at which positive and negative images are the same. The script
writes `shared_weights.csv`: of each case the test error, and for each hidden layer the share of images, in %, whose
goodness is larger with a wrong label than with the right one; 50 is chance.
"""

import argparse
from pathlib import Path

from experiments.common import add_output_options, results_folder, summary_of, write_table
from experiments.training import run_row, trained

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/rules_by_architectures/shared_weights")
RATE = "optimizer.learning_rate=0.0052"
"""The best rate of `forward_forward` on this network."""
CASES = {
    "shared": [RATE],
    "a kernel for each position": [RATE, "architecture.shared_weights=false"],
    "readouts from the first layer on": [RATE, "rule.first_readout_layer=0"],
    "frozen stages": [RATE, "frozen=[stages_*]"],
    "frozen stages, at a larger rate": ["optimizer.learning_rate=0.03", "frozen=[stages_*]"],
}
LAYERS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_output_options(parser)
    into = results_folder(parser.parse_args(), HERE)
    results = []
    for number, (name, given) in enumerate(CASES.items()):
        overrides = ["task=digits", "architecture=cnn", "rule=forward_forward", "evaluations=1", *given]
        (run,) = trained(run_row(name, OUTPUTS / str(number), overrides, None, seeds=None, default=5))
        final = summary_of(run)["final"]
        error = final["test_error"]
        row = {"case": name, "n": error["n"]}
        row |= {key: f"{error[part]:.2f}" for key, part in (("test error", "mean"), ("low", "low"), ("high", "high"))}
        for layer in range(LAYERS):
            row[f"wrong pairs, layer {layer}"] = f"{final[f'pairwise_error_{layer}']['mean']:.1f}"
        results.append((row, [run]))
    write_table(into / "shared_weights.csv", results)


if __name__ == "__main__":
    main()
