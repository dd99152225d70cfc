"""Measures how much hidden layers of digits' convolutional network still say about an image after training.

    python -m experiments.rules_by_architectures.saturation

sDFA sends signs, which do not shrink as errors do, and the signs of one image's error have the same sum in every step:
all outputs but one are too high. With shared weights, the signals of all positions add up to this. The script writes
`saturation.csv`: of each rule, feedback scale and hidden layer, the share of units beyond ±0.99, where the derivative
of tanh vanishes, and the standard deviation of a unit over images.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments.common import add_output_options, of_seed, results_folder, summary_of, write_table
from experiments.training import run_row, trained
from fa_jax.cli.build import build
from fa_jax.records.reader import Run, read_checkpoint

HERE = Path(__file__).parent
OUTPUTS = Path("outputs/rules_by_architectures/saturation")
CASES = {"sdfa_scale_0.01": ("sdfa", 0.01), "sdfa": ("sdfa", 1.0), "dfa": ("dfa", 1.0), "shallow": ("shallow", None)}
"""Rules and feedback scales by the names of their folders."""
IMAGES, SATURATED = 200, 0.99


def rows(run: Run) -> list[dict[str, object]]:
    """Returns the saturation of each hidden layer of a finished run, over all seeds."""
    job, params = build(run.config), read_checkpoint(run)["params"]
    images = jnp.asarray(job.task.test.inputs[:IMAGES], jnp.float32)
    of_seeds = [job.network.forward(of_seed(params, i), images)[1] for i in range(len(run.seeds))]
    layers = [np.stack([hiddens[name] for hiddens in of_seeds]) for name in of_seeds[0]]
    return [
        {
            "layer": number,
            "saturated": f"{np.mean(np.abs(h) > SATURATED):.3f}",
            "deviation over images": f"{np.mean(np.std(h, axis=1)):.4f}",
        }
        for number, h in enumerate(layers)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_output_options(parser)
    into = results_folder(parser.parse_args(), HERE)
    results = []
    for name, (rule, scale) in CASES.items():
        overrides = ["task=digits", "architecture=cnn", f"rule={rule}", "probe=0", "evaluations=1"]
        overrides += [] if scale is None else [f"feedback.scale={scale}"]
        (run,) = trained(run_row(name, OUTPUTS / name, overrides, None, seeds=None, default=5))
        error = summary_of(run)["final"]["test_error"]
        case = {"rule": rule, "feedback scale": "" if scale is None else scale, "test error": f"{error['mean']:.2f}"}
        results += [({**case, "n": error["n"], **row}, [run]) for row in rows(run)]
    write_table(into / "saturation.csv", results)


if __name__ == "__main__":
    main()
